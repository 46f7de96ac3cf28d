"""What the deploys kit adds to the estate, and its operations. Read at every start: imports little.

An app is declared with where its specification lies; a platform with how it is reached.
"""

from __future__ import annotations

import re

from handrail.errors import Place
from handrail.estate.kinds import ADDRESS, SECRET
from handrail.estate.shapes import (
    COUNT,
    DURATION,
    FLAG,
    NAME_TEXT,
    REFERENCE,
    TEXT,
    Choice,
    Key,
    ListOf,
    MapOf,
    Record,
)
from handrail.operations.model import Operation, Parameter, Selector, Undo, Watch

KIT = "deploys"
_PLACE = Place("kit deploys")
_TASK = re.compile(r"[^\s/]{1,128}(/[^\s/]{1,128})?")
_UNDO = Undo("act")


def _review(**given: object) -> dict[str, object]:
    given.pop("place")
    return given


def _auto(**given: object) -> dict[str, object]:
    given.pop("place")
    return given


PLATFORM = {
    "kind": Key(Choice("nomad", "supervisor", "autoscaling"), "what it is", required=True),
    "url": Key(ADDRESS, "where it answers: by value, or {env: NAME}"),
    "identity": Key(TEXT, "who it says it is; written by `handrail adopt`", default=""),
    "token": Key(SECRET, "nomad: its ACL token, {env: NAME} or {file: PATH}"),
    "namespace": Key(NAME_TEXT, "nomad: where jobs live", default="default"),
    "region": Key(TEXT, "nomad, autoscaling: the region", default=""),
    "ca": Key(TEXT, "nomad: PEM file of the authority that signed its certificate", default=""),
    "certificate": Key(TEXT, "nomad: PEM file of the client's own certificate", default=""),
    "key": Key(TEXT, "nomad: PEM file of the client's own key", default=""),
    "soak": Key(
        DURATION, "how long everything is watched after a machine was changed; else 5 to 10 minutes"
    ),
    "folder": Key(TEXT, "supervisor: where versions of apps are kept", default=""),
}

APP = {
    "repository": Key(TEXT, "git repository of the app: an address, or a path", required=True),
    "platform": Key(REFERENCE, "what runs it", required=True),
    "spec": Key(
        TEXT,
        "its specification, a path in that repository; `{environment}` may stand in it",
        required=True,
    ),
    "variables": Key(
        TEXT, "file of variables for it, a path there; `{environment}` may stand in it", default=""
    ),
    "job": Key(TEXT, "its name on the platform; else what the specification says", default=""),
    "branch": Key(TEXT, "what is deployed where nobody says --ref", default="main"),
    "images": Key(
        MapOf(TEXT, _TASK),
        "task (`web`, or `group/web`) to the image that it runs; in its tag may stand `{commit}`,"
        " `{short}` and `{branch}`",
        default={},
    ),
    "registry-token": Key(SECRET, "`user:password` or a token for the images' registry"),
    "registry-realm": Key(
        TEXT, "the host that gives out tokens for that registry, where it is another", default=""
    ),
    "review": Key(
        Record(
            _review,
            {
                "github": Key(TEXT, "`owner/name` there", default=""),
                "gitlab": Key(TEXT, "`group/name` there", default=""),
                "url": Key(TEXT, "address of its API, where it is not the public one", default=""),
                "token": Key(SECRET, "a token that may read pull requests"),
            },
        ),
        "who says that a commit was reviewed; else its trailers and signature do",
    ),
    "auto": Key(
        Record(
            _auto,
            {
                "branches": Key(
                    ListOf(TEXT), "deployed by the web hook when they change", required=True
                ),
                "secret": Key(
                    SECRET,
                    "what its web hook is signed with: {env: NAME} or {file: PATH}, 16 characters "
                    "or more; several with blanks between all count",
                    required=True,
                ),
                "tokens": Key(
                    FLAG,
                    "also take GitLab's `X-Gitlab-Token`, which is the secret itself",
                    default=False,
                ),
            },
        ),
        "what the web hook may deploy by itself, where no guard requires anybody",
    ),
    "service": Key(REFERENCE, "the service that it is, where others need that", default=""),
    "soak": Key(DURATION, "how long everything is watched after a deploy", default=60),
    "canaries": Key(FLAG, "canaries are promoted by the watch", default=True),
    "capacity": Key(COUNT, "the fewest instances that it can live with", default=0),
}

KINDS = {"app": APP, "platform": PLATFORM}


def _text(name: str, summary: str, default: str | None = "") -> Parameter:
    return Parameter(name, "text", default, summary=summary)


def _operation(
    name: str, on: str, summary: str, *parameters: Parameter, soak_s: int, timeout_s: int = 600
) -> Operation:
    return Operation(
        name=name,
        argv=(name,),
        on=Selector(on),
        undo=_UNDO,
        watch=Watch(soak_s=soak_s, every_s=2),
        place=_PLACE,
        summary=summary,
        parameters=parameters,
        timeout_s=timeout_s,
        kit=KIT,
        act=f"{KIT}.{name}",
    )


OPERATIONS = (
    _operation(
        "deploy",
        "app",
        "run what an app's repository says at a commit",
        _text("ref", "branch, tag or commit; else the app's branch"),
        _text("images", "`task=image` pairs, with commas"),
        soak_s=60,
    ),
    _operation(
        "rollback",
        "app",
        "put back the version that ran before",
        _text("to", "number of the run whose version is meant; else the last confirmed one before"),
        soak_s=60,
    ),
    _operation("restart", "app", "restart an app's instances, a few at a time", soak_s=60),
    _operation(
        "scale",
        "app|group",
        "set how many instances an app, or machines a group, has",
        _text("count", "a number; of an app also `group=number`", None),
        soak_s=60,
    ),
    _operation(
        "drain",
        "node|group|platform",
        "move everything away from a machine, and put nothing there any more",
        _text("machine", "its id or name, where the target is not the machine itself"),
        _text("deadline", "how long instances may take to move", "10m"),
        soak_s=300,
        timeout_s=7200,
    ),
    _operation(
        "detach",
        "node|group",
        "take a machine out of its group and leave it running",
        _text("machine", "its id or name, where the target is not the machine itself"),
        Parameter("then", "choice", "none", ("none", "terminate"), "what becomes of it afterwards"),
        Parameter("replace", "bool", "false", summary="let the group start another"),
        soak_s=600,
    ),
    _operation(
        "terminate",
        "node|group",
        "end a machine for ever",
        _text("machine", "its id or name, where the target is not the machine itself"),
        Parameter("replace", "bool", "true", summary="let the group start another"),
        soak_s=600,
    ),
)
