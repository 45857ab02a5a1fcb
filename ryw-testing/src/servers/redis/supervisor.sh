# Makes the folder of one set of servers, and removes it and what runs in it however the owner ends:
# `sh -c <this text> NAME FOLDER`. Says `made` or what is wrong, and closes standard output.
#
# Standard input is a pipe whose other end the owner holds and never writes to, so the end of the
# file means that the owner let go of it or is dead. This process leads a process group which only
# its own servers, and what they fork, are in.
folder=$1
# Ignored, as a stray signal to the group must not end the one process that cleans up.
trap '' HUP INT PIPE QUIT TERM
# Made here, since the owner can be killed at any moment. One that exists is somebody else's.
mkdir -m 700 "$folder" 2>&1 || exit 1
echo made
exec >/dev/null
cd /

while read -r _; do :; done

# Kills all others of the group, and says whether there were any that are not dead already.
killed() {
    found=1
    for stat in /proc/[0-9]*/stat; do
        { read -r pid _ state _ group _ <"$stat"; } 2>/dev/null || continue
        [ "$group" = $$ ] && [ "$pid" != $$ ] && [ "$state" != Z ] || continue
        kill -s KILL "$pid" 2>/dev/null
        found=0
    done
    return $found
}

# There is nothing worth an orderly end: the files go too. Frozen ones die of it as well. The first
# pause lets a program that was just being started arrive in the group.
sleep 0.02
tries=0
while killed && [ "$tries" -lt 400 ]; do
    tries=$((tries + 1))
    sleep 0.02
done
rm -rf "$folder"
# For one that came even later, though it ends this process too.
kill -s KILL 0
