#!/bin/sh
# truth: what /proc says of every thread, one line each:
#   tgid tid ppid uid euid gid state start kthread comm
# start is in clock ticks after boot; comm comes last, with \n for a newline and \\ for a backslash, as the kernel has it.
exec awk '
function report(task,    line, words, field) {
    while ((getline line < (task "/stat")) > 0) words = line   # comm may hold newlines; the numbers are on the last line
    close(task "/stat")
    sub(/.*\) /, "", words)
    split(words, field, " ")                            # field[1] is the third one of proc(5)
    while ((getline line < (task "/status")) > 0) {
        split(line, words_of, "\t")
        of[words_of[1]] = words_of[2]
        if (words_of[1] == "Name:") comm = substr(line, 7)
        if (words_of[1] == "Uid:") euid = words_of[3]
        if (words_of[1] == "Gid:") {                    # the last one that is needed
            print of["Tgid:"], of["Pid:"], of["PPid:"], of["Uid:"], euid, of["Gid:"], field[1], field[20], \
                int(field[7] / 2097152) % 2, comm       # PF_KTHREAD of the flags
            break
        }
    }
    close(task "/status")
}
BEGIN { for (i = 1; i < ARGC; i++) report(ARGV[i]) }
' /proc/[0-9]*/task/[0-9]*
