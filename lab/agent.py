"""What `lab.shell` runs on a machine: a few lines of `sh`, typed there, for dash, bash and busybox.

It reads lines `@SESSION NUMBER KIND PLACE PAYLOAD DIGEST`; DIGEST is of the words before it. A command has a
number, so that one that is typed twice runs once. `MESSAGES` names each kind, `ANSWERS` each answer, which
is a line `lab-SESSION WORDS DIGEST`. The output of a command comes once unasked and for speed, in lines
`lab-SESSION raw NUMBER LINE BASE64` without a digest; it counts only if all of it has the digest of `end`.

A command runs beside the agent, which goes on to read and so can end it. Only a command that itself reads
the terminal (`/proc/$$/fd/0`; the lab's own, before a machine is frozen) runs in its place.

Answers go through the kernel's log where the machine lets us: the kernel prints whole records, so no message
of a driver can stand in the middle of one. Long output goes to the terminal: a record takes milliseconds.
There the agent's own answer would stand in the middle of a line, so it waits until all is sent, as `stty`
does before it changes a terminal.
Without a terminal (on a virtio port) nothing else is written there, and answers go to standard output.
"""

from collections.abc import Mapping

#: What is typed to it, by kind: what PLACE and PAYLOAD are, and what it does.
MESSAGES: Mapping[str, str] = {
    "h": "`@hello` for SESSION: what runs is ended, a new session begins",
    "c": "PAYLOAD is `SIZE,BASE64`: bytes of the command, for PLACE",
    "i": "the same for the command's input; places go on from the command's",
    "b": "PAYLOAD is `CHARACTERS,SIZE,SHA256`: all of the input follows as lines of base64, after `send`",
    "C": "as `c`, the last bytes: the command starts",
    "I": "as `i`, the last bytes: the command starts",
    "S": "as `c`, the last bytes: the command starts in the agent's place, and may read the terminal",
    "e": "how did it end?",
    "k": "end it, with all it has started",
    "o": "PLACE is a line of output, PAYLOAD `WIDTH,LAST`: the lines up to LAST again",
}
#: What it answers, by its first word.
ANSWERS: Mapping[str, str] = {
    "ready": "the session has begun",
    "got": "NUMBER PLACE: this many bytes are there; -1: the command runs",
    "send": "NUMBER PLACE: the input may come",
    "end": "NUMBER CODE SIZE SHA256: it ended; SHA256 is `-` for no output",
    "waits": "NUMBER: the command that reads the terminal waits for its line",
    "out": "NUMBER LINE BASE64: a line of output",
    "nak": "a line came garbled, or for another command",
}
#: What it needs in the machine, besides the shell itself.
TOOLS = ("base64", "cat", "rm", "sed", "sha256sum", "wc")
#: How the agent names what else it may lack: a directory for its files.
DIRECTORY = "directory"
#: Bytes of output up to which it comes through the kernel's log.
LOGGED = 4096

#: Takes `sid`, the session, and `K`: 1 to answer through the kernel's log. In braces, so that a part of
#: it does nothing.
SCRIPT = r"""{
stty -echo -icanon -isig -ixon -brkint ignbrk min 1 2>/dev/null
set +m 2>/dev/null
T=$(tty 2>/dev/null)
[ -c "$T" ]||T=/proc/$$/fd/1
[ -e "$T" ]||T=/dev/console
[ -t 0 ]||K=0
L=$T t=
[ "$K" = 1 ]&&[ -w /dev/kmsg ]&&echo on 2>/dev/null >/proc/sys/kernel/printk_devkmsg&&L=/dev/kmsg t='<3>'
for O in /tmp /run /dev -; do O=$O/.lab-$sid; ( : >$O ) 2>/dev/null&&break; done
[ -e $O ]||{ echo "lab-lacks-$sid-0 directory." >$L; O=; }
say() { s="$sid $*"; c=$(echo "$s"|sha256sum); echo "${t}lab-$s ${c%"${c#????????????}"}" >$L; }
answer() {
[ -s $O.r ]||kill -0 $w 2>/dev/null||echo 137 >$O.r
[ -s $O.r ]||{ say got $n -1; return; }
read -r r <$O.r
[ -s $O ]||{ say end $n $r 0 -; return; }
c=$(sha256sum <$O); say end $n $r $(wc -c <$O) ${c%% *}
}
go() {
( eval "$(cat $O.c)" ) <$O.i >$O 2>&1; echo $? >$O.r
x="lab-$sid raw $n"
if [ $(wc -c <$O) -gt @LOGGED@ ]; then
base64 -w 600 $O|sed =|sed "N;s/\n/ /;s/^/$x /" >$T
stty -echo <$T 2>/dev/null
elif [ -s $O ]; then
i=0; base64 -w 600 $O|while read -r l; do i=$((i+1)); echo "$t$x $i $l" >$L; done
fi
answer
}
tree() {
kill -STOP $1||return
echo $1
for s in /proc/[0-9]*/stat; do
read -r l <$s||continue
set -- $1 ${l##*) }
[ "$3" != $1 ]||( s=${s%/*}; tree ${s##*/} )
done
}
halt() {
[ -n "$w" ]||return 0
[ -s $O.r ]||for p in $(tree $w); do kill -9 $p; done
wait $w
w=
[ -s $O.r ]||echo 137 >$O.r
} 2>/dev/null
n=0 i=0 w=
end() { halt; rm -f $O $O.?; trap - EXIT HUP; }
trap exit HUP
[ -z "$O" ]||trap end EXIT
[ -z "$O" ]||say ready
while [ "$O" ]&&read -r m q k a p d x; do
case $m in @bye) break;; @hello|@$sid);; *) continue;; esac
[ ${#d} = 12 ]||{ say nak; continue; }
c=$(echo "$m $q $k $a $p"|sha256sum)
case $c in $d*);; *) say nak; continue;; esac
if [ $m = @hello ]; then halt; sid=$q n=0 i=0; say ready; continue; fi
if [ $q = $n ]; then
case $k in
k) halt; answer;;
o) base64 -w ${p%,*} <$O >$O.b; sed -n "$a,${p#*,}p" $O.b|
while read -r l; do say out $n $a $l; a=$((a+1)); done;;
*) answer;;
esac
elif [ $q = $((n+1)) ]; then
if [ $a = $i ]&&[ $k != e ]&&[ $k != k ]; then
[ $i != 0 ]||{ halt; : >$O.c; : >$O.i; }
case $k in [cCS]) f=$O.c;; *) f=$O.i;; esac
if [ $k = b ]; then
say send $q $i; head -c ${p%%,*}|base64 -d >$f 2>/dev/null
c=$(sha256sum <$f) x=${p#*,}
case $c in ${x#*,}*) i=$((a+${x%,*}));; *) : >$f;; esac
else echo ${p#*,}|base64 -d >>$f; i=$((a+${p%%,*})); fi
case $k in
[CI]) n=$q i=0; : >$O.r; go & w=$!; say got $n -1; continue;;
S) n=$q i=0 w=$$; : >$O.r; say got $n -1; go; w=; continue;;
esac
fi
say got $q $i
else say nak
fi
done
[ -z "$O" ]||end
stty sane 2>/dev/null
}
""".replace("@LOGGED@", str(LOGGED))
