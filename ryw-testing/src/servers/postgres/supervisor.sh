# Makes the folder of one cluster, and removes it and what runs in it however the owner ends:
# `sh -c <this text> NAME FOLDER`. Says `made` or what is wrong, and closes standard output.
#
# Standard input is a pipe whose other end the owner holds and never writes to, so the end of the
# file means that the owner let go of it or is dead. This process leads a process group which only
# the programs of its own cluster join; `kill 0` therefore reaches those and nothing else.
folder=$1
# Ignored, as a stray signal to the group must not end the one process that cleans up.
trap '' HUP INT PIPE QUIT TERM
# Made here, since the owner can be killed at any moment. One that exists is somebody else's.
mkdir -m 700 "$folder" 2>&1 || exit 1
echo made
exec >/dev/null
cd /

while read -r _; do :; done

alive() {
    for file in "$folder"/*/postmaster.pid; do
        { read -r pid <"$file" && kill -s 0 "$pid"; } 2>/dev/null && return 0
    done
    return 1
}

# INT ends a tool (and starts a fast shutdown of a server); QUIT makes a server give up at once.
# The pause lets a program that was just being started arrive in the group.
kill -s INT 0
sleep 0.02
kill -s QUIT 0
# For those that are frozen: the servers are in the group; their children are not, and without it
# they would end only when the server loses patience, after 5 s.
kill -s CONT 0
group=' '
for stat in /proc/[0-9]*/stat; do
    { read -r pid _ _ _ leader _ <"$stat" && [ "$leader" = $$ ] && group="$group$pid "; } 2>/dev/null
done
for stat in /proc/[0-9]*/stat; do
    { read -r pid _ _ parent _ <"$stat"; } 2>/dev/null || continue
    case $group in *" $parent "*) kill -s CONT "$pid" 2>/dev/null ;; esac
done
tries=0
while alive && [ "$tries" -lt 400 ]; do
    tries=$((tries + 1))
    sleep 0.02
done

# A server that was killed leaves its System V segment behind (line 7: key and id).
for file in "$folder"/*/postmaster.pid; do
    [ -e "$file" ] || continue
    segment=$(sed -n '7s/^ *[0-9]* *//p' "$file")
    [ -n "$segment" ] && ipcrm -m "$segment"
done 2>/dev/null

tries=0
until rm -rf "$folder" 2>/dev/null || [ "$tries" -ge 100 ]; do
    tries=$((tries + 1))
    sleep 0.02
done
kill -s KILL 0
