"""Has the rights of its user, and no others after SIGTERM."""
import os, signal
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
signal.signal(signal.SIGTERM, lambda *_: None)
print('ready', flush=True)
signal.pause()
ids = os.getresuid() + os.getresgid()
caps = [line for line in open('/proc/self/status') if line.startswith('CapEff')][0].split()[1]
try:
    os.setuid(0)
    print('root again', flush=True)
except PermissionError:
    print('ok' if set(ids) == {65534} and int(caps, 16) == 0 else 'faults', flush=True)
