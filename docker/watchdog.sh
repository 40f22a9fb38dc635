# Docker starts again what ends, and leaves alone what hangs. This is the health check of a service, and ends it if it hangs:
#
#     sh watchdog.sh COMMAND...
#
# COMMAND is the check itself. It ends with 0 if the service works, and with 2 if it is there and gives no sign of life. If
# that is so in each check for DEDP_HUNG_SECONDS (300; 0: never), the process of the service is killed, and `restart` of
# compose.yaml starts it again. Any other code says that the service is not healthy, and no more. A check that is itself
# too slow, and is ended by Docker, does not count: then the machine is slow.
#
# Only for a container with `init: true`: its process 1 is Docker's, and the first child of that is the service.

limit=${DEDP_HUNG_SECONDS:-300}
silent=/tmp/silent # since its last change; gone after a restart, because /tmp is

"$@"
code=$?
if [ "$code" -ne 2 ]; then
    rm -f "$silent"
    exit "$code"
fi
[ -e "$silent" ] || : >"$silent"
since=$(($(date +%s) - $(stat -c %Y "$silent")))
if [ "$limit" -gt 0 ] && [ "$since" -ge "$limit" ]; then
    read -r service _ </proc/1/task/1/children
    message="watchdog: no sign of life for $since s; process $service is killed, to be started again"
    echo "$message"
    # Into the log of the service.
    echo "$message" 2>/dev/null >/proc/1/fd/2
    # A process that is stopped takes no other signal.
    kill -KILL "$service"
fi
exit "$code"
