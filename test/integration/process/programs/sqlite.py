"""A transaction that goes on after SIGTERM."""
import signal, sqlite3
signal.signal(signal.SIGTERM, lambda *_: None)
db = sqlite3.connect('data.db', isolation_level=None)
db.execute('create table t (n integer)')
db.execute('begin exclusive')
for n in range(5000): db.execute('insert into t values (?)', (n,))
print('ready', flush=True)
signal.pause()
for n in range(5000, 6000): db.execute('insert into t values (?)', (n,))
db.execute('commit')
total = sqlite3.connect('data.db').execute('select count(*), sum(n) from t').fetchone()
check = db.execute('pragma integrity_check').fetchone()
print('ok' if total == (6000, 6000 * 5999 // 2) and check == ('ok',) else 'faults', flush=True)
