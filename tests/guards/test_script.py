"""The guards that look at the script: rehearsed, committed, reviewed, reversible, harmless here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from handrail.errors import Place
from handrail.estate.model import BackupRule, Contraindication
from handrail.guards import (
    backup_proven,
    committed,
    contraindication,
    irreversible,
    rehearsed,
    review,
)
from handrail.operations.model import Undo
from handrail.plans.facts import Measure, TableMeasure
from handrail.plans.model import Decision, LastChange
from handrail.plans.policy import Policy
from support.builders import (
    ANA,
    BEN,
    MEASURE,
    STORE,
    make_case,
    make_effect,
    make_estate,
    make_facts,
    make_operation,
    make_proof,
    make_rehearsal,
    make_request,
    make_service,
    make_store,
)

REHEARSE = "handrail rehearse reset-pilot"


def judge_rehearsal(policy: Policy | None = None, **changed: Any) -> Decision:
    facts = make_facts(rehearsal=make_rehearsal(**changed))
    return rehearsed.judge(make_case(facts=facts, policy=policy))


class TestRehearsed:
    def test_a_fresh_rehearsal_is_allowed(self) -> None:
        """Who made it and when is said."""
        decision = judge_rehearsal()
        assert (decision.verdict, decision.because) == ("allow", f"by {ANA} on 2026-01-31T08:00")

    def test_without_one_it_is_refused(self) -> None:
        """The remedy is the command."""
        decision = rehearsed.judge(make_case(facts=make_facts(rehearsal=None)))
        assert (decision.verdict, decision.because) == ("refuse", "not at this version")
        assert decision.remedy == REHEARSE
        assert decision.declared == "operations/reset-pilot.yaml:1"

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"made_at": "2026-01-30T08:59:59.000000Z"}, "is 24 h old; 24 h count"),
            ({"made_at": "2026-01-27T09:00:00.000000Z"}, "is 4 days old; 24 h count"),
            ({"made_at": "2026-01-31T09:06:00.000000Z"}, "still to come"),
            ({"exit_code": 1}, "it failed in rehearsal (exited, exit 1)"),
            ({"ended": "timeout", "exit_code": -15}, "it failed in rehearsal (timeout, exit -15)"),
        ],
    )
    def test_one_that_does_not_count_is_refused(self, changed: dict[str, Any], said: str) -> None:
        """Too old, from the future, or failed."""
        decision = judge_rehearsal(**changed)
        assert (decision.verdict, decision.remedy) == ("refuse", REHEARSE)
        assert said in decision.because

    def test_files_that_no_digest_covers_are_refused(self) -> None:
        """A rehearsal that read them says nothing of what they hold next time."""
        decision = judge_rehearsal(unlisted=("etc/pilot.conf",))
        assert decision.verdict == "refuse"
        assert "it read etc/pilot.conf" in decision.because
        assert "`uses`" in decision.because + decision.remedy

    def test_one_that_read_what_no_digest_covers_is_refused(self) -> None:
        """The remedy is to declare the file, not to rehearse again."""
        decision = judge_rehearsal(unlisted=("etc/pilot.conf",))
        assert (decision.verdict, decision.remedy) == ("refuse", "add to `uses`: etc/pilot.conf")
        assert decision.because == "it read etc/pilot.conf, which the plan does not cover"

    def test_the_last_second_of_its_age_counts(self) -> None:
        """A rehearsal that is just as old as allowed, and a clock that is a little off, count."""
        for made_at in ("2026-01-30T09:00:00.000000Z", "2026-01-31T09:04:00.000000Z"):
            assert judge_rehearsal(made_at=made_at).verdict == "allow"

    def test_the_policy_may_require_that_it_was_confined(self) -> None:
        """Where it only prefers that, an unconfined rehearsal counts."""
        loose: dict[str, Any] = {"confined": "no user namespaces"}
        assert judge_rehearsal(**loose).verdict == "allow"
        strict = judge_rehearsal(Policy(confine="require"), **loose)
        assert (strict.verdict, strict.because) == (
            "refuse",
            "it was not confined: no user namespaces",
        )
        assert judge_rehearsal(Policy(confine="require")).verdict == "allow"

    @pytest.mark.parametrize(
        ("rows", "verdict"), [(400, "allow"), (399, "refuse"), (600, "allow"), (601, "refuse")]
    )
    def test_a_touched_table_may_have_moved_a_little(self, rows: int, verdict: str) -> None:
        """By the larger of share and rows, up or down; one row more is too far."""
        measure = Measure((TableMeasure("sessions", rows),), 1)
        decision = rehearsed.judge(make_case(facts=make_facts(measure=measure)))
        assert decision.verdict == verdict
        if verdict == "refuse":
            assert f"had 500 rows when rehearsed and has {rows:,} now" in decision.because

    def test_the_share_counts_where_it_is_larger(self) -> None:
        """One per cent of a million rows is more than a hundred."""
        before = Measure((TableMeasure("sessions", 10**6),), 1)
        for rows, verdict in ((10**6 + 10_000, "allow"), (10**6 + 10_001, "refuse")):
            now = Measure((TableMeasure("sessions", rows),), 1)
            facts = make_facts(measure=now, rehearsal=make_rehearsal(measure=before))
            assert rehearsed.judge(make_case(facts=facts)).verdict == verdict

    def test_a_table_that_it_does_not_touch_may_move_as_it_likes(self) -> None:
        """Only what the script changes has to be as it was."""
        moved = replace(MEASURE, tables=(TableMeasure("devices", 10**6), MEASURE.tables[1]))
        assert rehearsed.judge(make_case(facts=make_facts(measure=moved))).verdict == "allow"

    def test_a_table_that_is_gone_or_new_has_moved(self) -> None:
        """No table has no rows."""
        gone = Measure((), 1)
        assert rehearsed.judge(make_case(facts=make_facts(measure=gone))).verdict == "refuse"

    def test_data_that_cannot_be_measured_is_refused(self) -> None:
        """How far it has moved could not be read."""
        decision = rehearsed.judge(make_case(facts=make_facts(measure=None)))
        assert decision.verdict == "refuse"
        assert "could not be read" in decision.because


class TestBackupProven:
    def test_a_recent_proof_is_allowed(self) -> None:
        """It says which backup, when, and how long losing the store would take."""
        decision = backup_proven.judge(make_case())
        assert decision.verdict == "allow"
        assert decision.because == "backup b-1 was restored on 2026-01-31 in 0.20 s"

    def test_a_backup_that_was_never_restored_does_not_count(self) -> None:
        """The rehearsal that makes the proof is the remedy."""
        decision = backup_proven.judge(make_case(facts=make_facts(proof=None)))
        assert (decision.verdict, decision.remedy) == ("refuse", REHEARSE)
        assert decision.because == "no backup of store/pilot-db has ever been restored"
        assert decision.declared == "estate/pilot.yaml:6"

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"equal": False}, "did not restore to equal content"),
            ({"proven_at": "2026-01-24T08:59:59.000000Z"}, "older than 7 days"),
            ({"proven_at": "2026-01-31T09:06:00.000000Z"}, "still to come"),
        ],
    )
    def test_a_proof_that_does_not_count_is_refused(
        self, changed: dict[str, Any], said: str
    ) -> None:
        """Other content, too old, or from the future."""
        decision = backup_proven.judge(make_case(facts=make_facts(proof=make_proof(**changed))))
        assert decision.verdict == "refuse"
        assert said in decision.because

    def test_the_store_says_how_old_a_proof_may_be(self) -> None:
        """Its own rule counts, to the second; without one it is a week."""
        proof = make_proof(proven_at="2026-01-30T09:00:00.000000Z")
        for prove_s, verdict in ((86400, "allow"), (86399, "refuse")):
            estate = make_estate(make_store(backups=BackupRule("object/b", 1, 1, prove_s)))
            case = make_case(estate=estate, facts=make_facts(proof=proof))
            assert backup_proven.judge(case).verdict == verdict
        without = make_case(estate=make_estate(make_store(backups=None)))
        assert backup_proven.judge(without).verdict == "allow"

    def test_what_nobody_would_miss_needs_none(self) -> None:
        """A lossy store is allowed without a proof."""
        case = make_case(
            estate=make_estate(make_store(durability="lossy")), facts=make_facts(proof=None)
        )
        assert backup_proven.judge(case).verdict == "allow"


class TestCommitted:
    def test_what_is_in_git_is_allowed(self) -> None:
        """The commit is named."""
        decision = committed.judge(make_case())
        assert (decision.verdict, decision.because) == ("allow", "commit a3f91c0")

    def test_an_uncommitted_change_is_refused(self) -> None:
        """Three files are named, the others counted."""
        decision = committed.judge(make_case(facts=make_facts(uncommitted=tuple("abcde"))))
        assert (decision.verdict, decision.because) == (
            "refuse",
            "not committed: a, b, c and 2 more",
        )
        assert decision.remedy

    def test_what_is_in_no_repository_is_refused(self) -> None:
        """Nothing is known of where it comes from."""
        decision = committed.judge(make_case(facts=make_facts(commit="")))
        assert decision.verdict == "refuse"
        assert decision.remedy.startswith("git init")


def judge_change(author: str, *reviewers: str, person: str = ANA) -> Decision:
    change = LastChange("a3f91c0" + "0" * 33, author, reviewers, "2026-01-31T07:00:00Z")
    facts = make_facts(change=change)
    return review.judge(make_case(facts=facts, request=make_request(person=person)))


class TestReview:
    def test_another_author_or_reviewer_is_allowed(self) -> None:
        """Two people have seen the script."""
        assert judge_change(BEN).verdict == "allow"
        decision = judge_change(ANA, BEN)
        assert (decision.verdict, decision.because) == (
            "allow",
            f"last changed in a3f91c0, seen by {BEN}",
        )

    @pytest.mark.parametrize(
        ("author", "reviewers"),
        [(ANA, ()), (ANA, (ANA,)), (ANA.upper(), ()), (ANA, ("Ana@Example.org",)), ("", ("",))],
    )
    def test_nobody_else_is_refused(self, author: str, reviewers: tuple[str, ...]) -> None:
        """A reviewer of one's own name, however it is written, is nobody else."""
        decision = judge_change(author, *reviewers)
        assert decision.verdict == "refuse"
        assert "Reviewed-by" in decision.remedy

    def test_a_script_in_no_commit_is_refused(self) -> None:
        """Nobody can have reviewed it."""
        decision = review.judge(make_case(facts=make_facts(change=None)))
        assert decision.verdict == "refuse"
        assert "in no commit" in decision.because

    def test_who_is_not_known_is_refused(self) -> None:
        """Whoever runs it could be the author: nobody knows."""
        decision = judge_change(BEN, person="")
        assert (decision.verdict, decision.remedy.startswith("git config")) == ("refuse", True)


class TestIrreversible:
    def test_what_is_undone_is_allowed(self) -> None:
        """It says how."""
        decision = irreversible.judge(make_case())
        assert decision is not None
        assert (decision.verdict, decision.because) == ("allow", "undone by restore")

    @pytest.mark.parametrize(
        ("undo", "rehearsal", "said"),
        [
            (Undo("irreversible", reason="the mails are sent"), {}, "the mails are sent"),
            (Undo("restore"), {"residue": ("table a", "schema")}, "table a, schema"),
            (Undo("restore"), {"undone": False}, "the undo failed"),
        ],
    )
    def test_what_cannot_be_put_back_needs_a_reason(
        self, undo: Undo, rehearsal: dict[str, Any], said: str
    ) -> None:
        """Without `--because` it is refused; with one it is allowed, and the reason is shown."""
        operation = make_operation(undo=undo)
        facts = make_facts(rehearsal=make_rehearsal(**rehearsal))
        without = irreversible.judge(make_case(operation=operation, facts=facts))
        request = make_request(because="test day")
        given = irreversible.judge(make_case(operation=operation, facts=facts, request=request))
        assert without is not None
        assert given is not None
        assert (without.verdict, given.verdict) == ("refuse", "allow")
        assert said in without.because
        assert "--because" in without.remedy
        assert given.because.endswith("because: test day")

    def test_a_restore_that_cannot_work_is_refused(self) -> None:
        """An undo that the store does not allow is none, whatever reason is given."""
        facts = make_facts(cannot_restore="the role may not create databases")
        request = make_request(because="test day")
        decision = irreversible.judge(make_case(facts=facts, request=request))
        assert decision is not None
        assert decision.verdict == "refuse"
        assert "may not create databases" in decision.because


def harmed(**changed: Any) -> Contraindication:
    place = Place("estate/services.yaml", 7)
    found = Contraindication("reset-pilot", "incident/oops", {}, "", place)
    return replace(found, **changed)


class TestContraindication:
    def test_nothing_speaks_against_it(self) -> None:
        """Most operations harm nobody."""
        assert contraindication.judge(make_case()).verdict == "allow"

    @pytest.mark.parametrize("need", [STORE, f"{STORE}?"])
    def test_an_operation_that_harms_target_or_dependant_is_refused(self, need: str) -> None:
        """By a hard need or a soft one; the incident and the place are told."""
        for estate in (
            make_estate(make_store(contraindications=(harmed(),))),
            make_estate(make_store(), make_service("api", need, contraindications=(harmed(),))),
        ):
            decision = contraindication.judge(make_case(estate=estate))
            assert (decision.verdict, decision.declared) == ("refuse", "estate/services.yaml:7")
            assert "incident/oops" in decision.because
            assert decision.remedy == "read incident/oops"

    def test_it_harms_whatever_it_is_measured_to_do(self) -> None:
        """An operation that destroys nothing is refused as well: the incident knew better."""
        estate = make_estate(
            make_store(), make_service("api", STORE, contraindications=(harmed(),))
        )
        facts = make_facts(rehearsal=make_rehearsal(make_effect("insert")))
        case = make_case(estate=estate, facts=facts)
        assert case.plan.consequences == ()
        assert contraindication.judge(case).verdict == "refuse"

    def test_what_harms_somebody_who_does_not_depend_on_it_is_allowed(self) -> None:
        """A neighbour's incident is the neighbour's."""
        estate = make_estate(make_store(), make_service("api", contraindications=(harmed(),)))
        assert contraindication.judge(make_case(estate=estate)).verdict == "allow"

    def test_another_operation_is_allowed(self) -> None:
        """It is right elsewhere, and others are right here."""
        other = make_store(contraindications=(harmed(operation="detach"),))
        assert contraindication.judge(make_case(estate=make_estate(other))).verdict == "allow"

    def test_it_is_harmless_with_the_parameters_that_are_named(self) -> None:
        """All of them: the remedy says which."""
        found = harmed(unless={"then": "terminate", "wait": "1"})
        estate = make_estate(make_store(contraindications=(found,)))
        some = make_case(estate=estate, request=make_request(parameters={"then": "terminate"}))
        decision = contraindication.judge(some)
        assert (decision.verdict, decision.remedy) == (
            "refuse",
            "harmless with -p then=terminate -p wait=1",
        )
        both = make_request(parameters={"then": "terminate", "wait": "1", "x": "y"})
        assert contraindication.judge(make_case(estate=estate, request=both)).verdict == "allow"

    @pytest.mark.parametrize(
        ("expires", "verdict"), [("2026-01-31", "refuse"), ("2026-01-30", "allow")]
    )
    def test_it_counts_to_the_end_of_its_last_day(self, expires: str, verdict: str) -> None:
        """The day after, somebody has to have looked at it again."""
        estate = make_estate(make_store(contraindications=(harmed(expires=expires),)))
        assert contraindication.judge(make_case(estate=estate)).verdict == verdict
