"""Orphans of sessions with and without a leader, below a process whose own session has lost it; checks them on SIGTERM."""
import ctypes, os, signal
if os.fork(): os._exit(0)
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
out, into = os.pipe()
def stay():
    while True: signal.pause()
def child(action):
    pid = os.fork()
    if pid: return pid
    action()
    stay()
def orphan(action=lambda: None):
    def parent():
        os.write(into, b'%d\n' % child(action))
        os._exit(0)
    os.waitpid(child(parent), 0)
def leads():
    os.setsid()
    orphan()
    os.write(into, b'0\n')
def goes():
    os.setsid()
    orphan()
    orphan(lambda: (os.setpgid(0, 0), child(lambda: None), os._exit(0)))
    os._exit(0)
def heard():
    line = b''
    while not line.endswith(b'\n'): line += os.read(out, 1)
def below(pid):
    children = [int(each) for each in open(f'/proc/{pid}/task/{pid}/children').read().split()]
    return children + [each for one in children for each in below(one)]
def places(): return {pid: open(f'/proc/{pid}/stat').read().split()[3:6] for pid in [os.getpid(), *below(os.getpid())]}
child(leads), heard(), heard()
child(lambda: child(leads)), heard(), heard()
os.waitpid(child(goes), 0), heard(), heard()
# A leader of a group that ends leaves a child in it.
ended = os.waitpid(-1, 0)
before = places()
term = []
signal.signal(signal.SIGTERM, lambda *_: term.append(1))
print(f'ready {os.getpid()}', flush=True)
while not term: signal.pause()
after = places()
# Whoever it is that takes what has lost its parent.
before[os.getpid()][0] = after[os.getpid()][0]
print('ok' if after == before and len(after) == 8 and len({sid for _, _, sid in after.values()}) == 4 else f'{before} {after} faults', flush=True)
for pid in below(os.getpid()): os.kill(pid, signal.SIGKILL)
