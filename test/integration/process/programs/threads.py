"""Four threads put into one queue until SIGTERM, and none of it is lost."""
import signal, threading, time, queue
done = threading.Event()
# It is for the first thread alone.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
counts = [0] * 4
work = queue.Queue()
def run(i):
    while not done.is_set():
        counts[i] += 1
        work.put(i)
        time.sleep(0.002)
threads = [threading.Thread(target=run, args=(i,), name=f'worker {i}') for i in range(4)]
for thread in threads: thread.start()
time.sleep(0.2)
print('ready', flush=True)
signal.sigwait([signal.SIGTERM])
done.set()
for thread in threads: thread.join()
print('ok' if work.qsize() == sum(counts) else 'faults', flush=True)
