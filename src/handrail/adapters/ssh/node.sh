# What Handrail asks of a node, in the words of any POSIX shell: dash, busybox and bash read it.
#
# Rules:
# - It comes by standard input, with its settings before it: nothing stands on a command line.
# - A step's folder is private; its keeper (`attend`) outlives the connection, and notes in it how
#   the step ended. It is there until somebody has collected that.
# - No file grows beyond its limit: the first half of the output is kept, and the last, in a ring of
#   two files.
# - What the script started is known by its session, its parents, and its mark in /proc.
#
# Files of a step: settings, start (removed as it begins), files/, home/, digests, pipe; claim (made
# by the keeper, or by who says that it never began), began (the keeper's process, its start, the
# boot), script, why, output, tail.a, tail.b, status (last).

umask 077
BLOCK=4096
PIECE=262144

say() {
    printf '%s\n' "$*"
}

fail() {
    say "fail $*"
    exit 0
}

nap() {
    sleep "${1:-0.1}" 2>/dev/null || sleep 1
}

now() {
    date +%s
}

size_of() {
    { wc -c <"$1"; } 2>/dev/null || say 0
}

boot() {
    cat /proc/sys/kernel/random/boot_id 2>/dev/null || say unknown
}

# --- processes --------------------------------------------------------------------------------

# Set `name`, `state`, `parent`, `session` and `begun` of a process, as /proc has them.
look() {
    line=
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    case $line in
    *") "*) ;;
    *) line=$(cat "/proc/$1/stat" 2>/dev/null | tr '\n' '?') ;; # a line end in its name
    esac
    name=${line#*(}
    name=${name%)*}
    # shellcheck disable=SC2086  # it is numbers, and one letter
    set -- ${line##*) }
    [ $# -ge 20 ] || return 1
    state=$1 parent=$2 session=$4
    shift 19
    begun=$1
}

# Set `script` and `its_start` as they were noted; `none` where the number is another's by now.
know() {
    [ -z "${its_start:-}" ] || return 0
    { read -r script its_start <script; } 2>/dev/null || script=none its_start=
}

# Set `found` to the processes of this step that are left, and `names` to a line for each.
left() {
    found=' ' names= table=
    ours=$script
    if look "$script" && [ "$begun" != "$its_start" ]; then ours=none; fi
    for entry in /proc/[0-9]*; do
        number=${entry#/proc/}
        look "$number" || continue
        case $state in Z | X) continue ;; esac
        if [ -n "$setsid" ]; then number_of=$session; else number_of=$number; fi
        [ "$number_of" != "$ours" ] || found="$found$number "
        table="$table$number $parent
"
    done
    for entry in $(grep -lF "HANDRAIL_RUN=$mark" /proc/[0-9]*/environ 2>/dev/null); do
        number=${entry#/proc/}
        number=${number%/environ}
        case $found in *" $number "*) ;; *) found="$found$number " ;; esac
    done
    if [ -z "$table" ]; then # no /proc here: the group is all that is known
        [ "$script" = none ] || ! kill -0 "-$script" 2>/dev/null || found=" -$script "
        return 0
    fi
    descend
    for number in $found; do
        look "$number" && names="$names$name
"
    done
    return 0 # the last one may have ended meanwhile
}

descend() {
    before=
    while [ "$before" != "$found" ]; do
        before=$found
        while read -r number parent; do
            case $found in *" $number "*) continue ;; esac
            case $found in *" $parent "*) found="$found$number " ;; esac
        done <<END
$table
END
    done
}

# End everything of this step: asked first, killed after the grace, given up on after a while.
press() {
    left
    # shellcheck disable=SC2086
    [ "$found" = ' ' ] || kill -TERM $found 2>/dev/null
    rounds=0
    while left && [ "$found" != ' ' ]; do
        # shellcheck disable=SC2086
        [ "$rounds" -lt "$((grace * 10))" ] || kill -KILL $found 2>/dev/null
        [ "$rounds" -lt "$((grace * 10 + 100))" ] || return 1
        rounds=$((rounds + 1))
        nap
    done
}

# End a step and note why; the first reason stays.
finish() {
    (
        set -C
        say "$1" >why
    ) 2>/dev/null
    know
    press
}

# --- the keeper -------------------------------------------------------------------------------

# Copy to a file until it has so many bytes: 1 where the input has ended, 2 where writing failed.
into() {
    while room=$((($2 - $(size_of "$1")) / BLOCK)) && [ "$room" -gt 0 ]; do
        dd bs=$BLOCK count="$room" 2>"copied.$1" >>"$1" || return 2
        records=$(sed -n 's/^\([0-9]*+[0-9]*\) .*/\1/p' "copied.$1" | head -n 1)
        # shellcheck disable=SC2004  # it is a sum: `12+3` of them, whole and not
        [ "$(($records))" -ge "$room" ] || return 1
    done
}

keep() {
    lost=0 ring= at=a
    into output "$((limit / 2))"
    went=$?
    while [ "$went" -eq 0 ]; do
        lost=$((lost + $(size_of "tail.$at")))
        : >"tail.$at" || break
        ring="${ring#"$at" } $at"
        ring=${ring# }
        into "tail.$at" "$((limit / 4))"
        went=$?
        case $at in a) at=b ;; *) at=a ;; esac
    done
    if [ "$went" -ne 1 ]; then
        rm -f spare
        finish disk-full
        lost=$((lost + $(wc -c)))
    fi
    say "$lost $ring" >kept
}

timer() {
    sleeper=
    trap 'kill $sleeper 2>/dev/null; exit 0' TERM
    sleep "$timeout" &
    sleeper=$!
    wait "$sleeper" && finish timeout
}

# Run the script; to the end of all that it started.
attend() {
    mkdir claim 2>/dev/null || exit 0 # somebody was told that it never began
    . ./settings
    setsid=$(command -v setsid)
    look $$ || begun=0
    say "$$ $begun $(boot)" >began.new
    mv began.new began
    since=$(now)
    keep <pipe >/dev/null 2>&1 &
    keeper=$!
    $setsid env -i PATH="$PATH" HOME="$PWD/home" ${USER+"USER=$USER"} \
        ${LOGNAME+"LOGNAME=$LOGNAME"} ${SHELL+"SHELL=$SHELL"} ${LANG+"LANG=$LANG"} \
        ${LC_ALL+"LC_ALL=$LC_ALL"} ${TZ+"TZ=$TZ"} sh ./start >pipe 2>&1 </dev/null &
    script=$!
    look "$script" || begun=0
    its_start=$begun
    say "$script $its_start" >script.new
    mv script.new script
    timer >/dev/null 2>&1 &
    timer=$!
    wait "$script"
    code=$?
    kill "$timer" 2>/dev/null
    until=$(now)
    linger
    wait_for "$keeper"
    note >status.new 2>/dev/null && mv status.new status
}

# What a script leaves behind has a moment to end by itself; then it is named, and ended.
linger() {
    rounds=0
    while left && [ "$found" != ' ' ] && [ "$rounds" -lt 5 ] && [ ! -e why ]; do
        rounds=$((rounds + 1))
        nap
    done
    survivors=
    [ -e why ] || survivors=$names
    press || survivors="$names(could not be ended)"
}

# Wait for the output's end: who holds it open and could not be ended is not waited for.
wait_for() {
    rounds=0
    [ -r /proc/self/stat ] || wait "$1"
    while kill -0 "$1" 2>/dev/null && look "$1" && [ "$state" != Z ]; do
        [ "$rounds" -lt 100 ] || kill -KILL "$1" 2>/dev/null
        rounds=$((rounds + 1))
        nap
    done
}

note() {
    read -r lost ring 2>/dev/null <kept || lost=0 ring=
    say "exit $code"
    say "seconds $((until - since))"
    [ ! -e why ] || say "why $(cat why)"
    say "lost $lost"
    say "ring $ring"
    say "$survivors" | while read -r name; do
        [ -z "$name" ] || say "survivor $name"
    done
}

# --- what is asked from the other side --------------------------------------------------------

# Make a step's folder from the archive that follows.
prepare() {
    for program in tar dd wc tail head mkfifo env date grep; do
        command -v "$program" >/dev/null 2>&1 || fail "program $program"
    done
    [ -d "$work" ] && [ -w "$work" ] && [ -x "$work" ] || fail "work"
    free=$(df -Pk "$work" 2>/dev/null | tail -n 1 | sed 's/.* \([0-9][0-9]*\)  *[0-9]*% .*/\1/')
    [ "$free" -ge "$reserve_kib" ] 2>/dev/null || fail "disk $free"
    mkdir -m 700 "$dir" 2>/dev/null || fail "work"
    cd "$dir" || fail "work"
    dd if=/dev/zero of=spare bs=$BLOCK count=4 2>/dev/null
    tar -x -o -f - 2>told || undone "copy $(head -c 300 told | tr -c '[:print:]' ' ')"
    if command -v sha256sum >/dev/null 2>&1; then
        (cd files && sha256sum -c ../digests) >/dev/null 2>&1 || undone "changed"
    fi
    [ -x "files/$program_path" ] || undone "noexec"
    mkdir home && mkfifo pipe && : >output || undone "copy no folder, pipe or file could be made"
    say "ready"
}

undone() {
    cd / && rm -rf "$dir"
    fail "$@"
}

# Start the keeper of a prepared step, on the word `go`: nothing begins before.
launch() {
    cd "$dir" 2>/dev/null || fail "gone"
    setsid=$(command -v setsid)
    exec 3<&0
    (
        read -r word <&3 && [ "$word" = go ] || exit 0
        exec 3<&-
        exec $setsid sh ./node attend
    ) >/dev/null 2>&1 &
    keeper=$!
    say "process $keeper"
    while [ ! -e began ]; do
        kill -0 "$keeper" 2>/dev/null || [ -e began ] || fail "never"
        nap
    done
    say "began"
}

# Find this user's folders of a run: `begun` where its script has been started.
places() {
    for at in "$work/handrail-$mark-"*; do
        [ -d "$at" ] && [ ! -L "$at" ] && [ -O "$at" ] || continue
        if [ -e "$at/began" ]; then say "begun ${at##*/}"; else say "unbegun ${at##*/}"; fi
    done
    say "end"
}

# Whether the keeper of this step is there, and no other process with its number.
alive() {
    read -r keeper since when <began || return 1
    [ "$when" = "$(boot)" ] && kill -0 "$keeper" 2>/dev/null || return 1
    look "$keeper" || return 0
    [ "$begun" = "$since" ] && [ "$state" != Z ]
}

# Tell the output beyond the first `have` bytes as it comes, and then how the step ended.
follow() {
    cd "$dir" 2>/dev/null || fail "gone"
    # Once that is said it is so: the word to begin may still be on its way.
    [ -e began ] || ! mkdir claim 2>/dev/null || fail "never"
    rounds=0
    until [ -e began ] || [ "$rounds" -ge 100 ]; do
        rounds=$((rounds + 1))
        nap
    done
    [ -e began ] || fail "never"
    setsid=$(command -v setsid)
    exec 3<&0
    (
        cat <&3 # until nobody listens any more
        [ -z "$tethered" ] || [ -e status ] || finish interrupted
        kill $$
    ) >/dev/null 2>&1 &
    listener=$!
    idle=0
    while [ ! -e status ] && { alive || [ -e status ]; }; do
        tell output "$have"
        if [ "$told" -gt 0 ]; then idle=0; else idle=$((idle + 1)); fi
        have=$((have + told))
        [ "$((idle % 5))" -ne 4 ] || say "tick"
        if [ "$idle" -lt 50 ]; then nap 0.1; else nap 0.5; fi
    done
    tell output "$have"
    report
    kill "$listener" 2>/dev/null
}

tell() {
    told=0
    end=$(($(size_of "$1") - $2))
    while [ "$told" -lt "$end" ]; do
        count=$((end - told))
        [ "$count" -le $PIECE ] || count=$PIECE
        say "out $count"
        tail -c "+$(($2 + told + 1))" "$1" | head -c "$count"
        told=$((told + count))
    done
}

report() {
    if [ ! -e status ]; then
        say "lost-keeper"
        say "end"
        return
    fi
    cat status
    for at in $(sed -n 's/^ring //p' status); do
        say "rest"
        tell "tail.$at" 0
    done
    say "end"
}

# End a step from outside.
stop() {
    cd "$dir" 2>/dev/null || fail "gone"
    setsid=$(command -v setsid)
    finish "$reason"
    say "ended"
}

# End what is left of a run, name it, and remove what was kept.
forget() {
    setsid=$(command -v setsid)
    for at in "$work/handrail-$mark-"*; do
        [ -d "$at" ] && [ ! -L "$at" ] && [ -O "$at" ] && cd "$at" || continue
        its_start=
        know
        if [ ! -e status ]; then
            left
            say "$names" | while read -r name; do
                [ -z "$name" ] || say "survivor $name"
            done
            finish interrupted
            if [ -e began ] && alive; then kill -KILL "$keeper" 2>/dev/null; fi
        fi
        cd / && rm -rf "$at"
    done
    say "end"
}

[ "${1:-}" != attend ] || attend
