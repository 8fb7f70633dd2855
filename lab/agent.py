"""What `lab.shell` runs on a machine: a few lines of `sh`, typed there, for dash, bash and busybox.

It reads numbered lines `@SESSION NUMBER KIND PLACE PAYLOAD DIGEST`. Kinds: `c` and `i` bring bytes of the
command and of its input to a place, in capitals the last ones, which start it; `o` asks for lines of
output again; `e` asks how it ended. It answers `lab-SESSION WORDS DIGEST`, and once, unasked and for
speed, the output without digests (`raw`), which counts only if all of it has the digest `end` names.
Without a terminal (on a virtio port, say) nobody else writes there, and it answers on its standard output.
A command may itself `say waits $n` and then read a line of the terminal, `/proc/$$/fd/0`.
"""

#: Takes `sid`, the session, and `K`: 1 to answer through the kernel's log.
SCRIPT = r"""stty -echo -icanon -isig -ixon -brkint ignbrk min 1 2>/dev/null
L=$(tty)
[ -t 0 ]||L=/proc/$$/fd/1 K=0
t=
[ "$K" = 1 ]&&[ -w /dev/kmsg ]&&echo on 2>/dev/null >/proc/sys/kernel/printk_devkmsg&&L=/dev/kmsg t='<3>'
for O in /tmp /run /dev; do O=$O/.lab-$$; ( : >$O ) 2>/dev/null&&break; done
say() { s="$sid $*"; c=$(echo "$s"|sha256sum); echo "${t}lab-$s ${c%"${c#????????????}"}" >$L; }
answer() {
[ -s $O ]||{ say end $n $r 0 -; return; }
c=$(sha256sum <$O); say end $n $r $(wc -c <$O) ${c%% *}
}
n=0 i=0 r=0
say ready
while read -r m q k a p d x; do
case $m in @bye) break;; @hello|@$sid);; *) continue;; esac
[ ${#d} = 12 ]||{ say nak; continue; }
c=$(echo "$m $q $k $a $p"|sha256sum)
case $c in $d*);; *) say nak; continue;; esac
if [ $m = @hello ]; then sid=$q n=0 i=0; say ready; continue; fi
if [ $q = $n ]; then
case $k in
o) base64 -w ${p%,*} <$O >$O.b; sed -n "$a,${p#*,}p" $O.b|
while read -r l; do say out $n $a $l; a=$((a+1)); done;;
*) answer;;
esac
elif [ $q = $((n+1)) ]; then
if [ $a = $i ]&&[ $k != e ]; then
[ $i = 0 ]&&: >$O.c&&: >$O.i
case $k in [cC]) f=$O.c;; *) f=$O.i;; esac
echo ${p#*,}|base64 -d >>$f; i=$((a+${p%%,*}))
case $k in [CI]) n=$q i=0; say got $n -1; ( eval "$(cat $O.c)" ) <$O.i >$O 2>&1; r=$?
[ -s $O ]&&base64 -w 600 $O|while read -r l; do echo "${t}lab-$sid raw $n $l" >$L; done
answer; continue;; esac
fi
say got $q $i
else say nak
fi
done
stty sane 2>/dev/null
"""
