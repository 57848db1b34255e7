"""The quickest guest that has everything the appliance talks to: an init, a VMA and a graphical session.

All of it are shell scripts of busybox, so that a VM runs 50 ms after its launch and hundreds of starts
fit into a test. The containers, disks and networks around it are real. A boot leaves a line in the home,
and so does a second connection to the graphical session: two things that a checker can count afterwards.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.pool import tiny_root

BOOTS = "boots"
"""In the home: one line for each boot."""
STRAYS = "strays"
"""In the home: one line for each connection to port 4100 that came when none was expected; must not exist."""

INIT = """\
#!/bin/sh
trap 'exit 0' PWR USR2
echo booted
echo booted >>/home/boots
%s
while :; do sleep 3600 & wait $!; done
"""
STUBBORN_INIT = """\
#!/bin/sh
echo booted
echo booted >>/home/boots
while :; do sleep 3600; done
"""
SERVERS = """\
echo stopped >/run/x
nc -ll -p 4100 -e /bin/xsession &
nc -ll -p 3030 -e /bin/vma &
"""
VMA = r"""#!/bin/sh
read -r verb url rest
while read -r line; do [ ${#line} -gt 1 ] || break; done
case $url in
/vma/x_state*) value="\"$(cat /run/x)\"" ;;
/vma/x_start*)
    case $(cat /run/x) in
    stopped|suspended|listening) echo listening >/run/x; value='"starting"' ;;
    *) value='' ;;
    esac ;;
/vma/expire_answer*)
    sleep 0.2
    if [ -e /run/ask ]; then value="{\"ask\": $(cat /run/ask), \"answer\": \"later\"}"
    else value='{"ask": null, "answer": "none"}'; fi ;;
/vma/expire*)
    number=${url#*vm.expiration.ask=}
    echo "${number%%&*}" >/run/ask
    value='"asking"' ;;
/vma/poweroff*) off=yes value=1 ;;
*) value=null ;;
esac
body=${value:-'"", "an X session is under way"'}
type=application/json-simplerpc
printf 'HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s' $type ${#body} "$body"
if [ -n "$off" ]; then sleep 0.3; kill -USR2 1; fi
"""
XSESSION = """\
#!/bin/sh
if [ "$(cat /run/x)" != listening ]; then echo stray >>/home/strays; exit; fi
echo connected >/run/x
cat
echo suspended >/run/x
"""


def quick_image(archive: Path) -> Path:
    """Pack the guest."""
    return _packed(archive, INIT % SERVERS)


def mute_image(archive: Path) -> Path:
    """Pack a guest that boots, has no VMA, and does not end when asked."""
    return _packed(archive, STUBBORN_INIT)


def _packed(archive: Path, init: str) -> Path:
    programs = {"sbin/init": init, "bin/vma": VMA, "bin/xsession": XSESSION}
    return tiny_root(archive, without="sbin/init", programs=programs)
