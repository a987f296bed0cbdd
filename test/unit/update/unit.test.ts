import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnsupportedError } from '../../../src/errors.ts';
import { dropIn, execStarts, type Unit, workloadOf } from '../../../src/update/unit.ts';

const TIDEOVER = ['/usr/bin/node', '/opt/tideover/dist/tideover.mjs'];
const groupsOf = (user: string) => [user, 'users'];

function unit(file: string, properties: Record<string, string> = {}): Unit {
  const all = { LoadState: 'loaded', Type: 'simple', DynamicUser: 'no', NoNewPrivileges: 'no', ...properties };
  return { name: 'cache.service', properties: new Map(Object.entries(all)), files: [file] };
}

const SIMPLE = '[Unit]\nDescription=x\n[Service]\nExecStart=/usr/bin/cache --port 7000 $OPTIONS "a b" %i\n';

test('the drop-in runs the very command line of the unit', () => {
  const { text, notes } = dropIn(unit(SIMPLE), TIDEOVER, groupsOf);
  assert.equal(
    text,
    `# Written by tideover keep cache.service. It is taken back by tideover keep --remove cache.service
[Service]
ExecStart=
ExecStart=+/usr/bin/node /opt/tideover/dist/tideover.mjs run cache -- /usr/bin/cache --port 7000 $OPTIONS "a b" %i
Type=notify
NotifyAccess=main
PIDFile=
KillMode=mixed
TimeoutStartSec=infinity
`,
  );
  assert.equal(notes.length, 1);
});

function startOf(file: string, properties: Record<string, string> = {}): string {
  return execStarts([dropIn(unit(file, properties), TIDEOVER, groupsOf).text])[0]!.replace(/^.* run cache -- /, '');
}

test('a program that tells systemd itself when it is ready goes on doing so', () => {
  const { text, notes } = dropIn(unit(SIMPLE, { Type: 'notify' }), TIDEOVER, groupsOf);
  assert.match(text, /tideover.mjs run --notify cache -- .*\nType=notify\nNotifyAccess=all\n/);
  assert.equal(notes.length, 1);
});

test('user, groups, capabilities and no_new_privs are put before the command', () => {
  const command = '/usr/bin/cache --port 7000 $OPTIONS "a b" %i';
  assert.equal(startOf(SIMPLE, { User: 'redis' }), `setpriv --reuid=redis --regid=redis --init-groups -- ${command}`);
  assert.equal(
    startOf(SIMPLE, { User: 'redis', Group: 'adm', SupplementaryGroups: 'ssl mail', NoNewPrivileges: 'yes' }),
    `setpriv --reuid=redis --regid=adm --groups=redis,users,ssl,mail --no-new-privs -- ${command}`,
  );
  const bounded = `${SIMPLE}CapabilityBoundingSet=CAP_CHOWN CAP_KILL\n`;
  const capabilities = { CapabilityBoundingSet: 'cap_chown cap_kill', AmbientCapabilities: 'cap_kill' };
  assert.equal(
    startOf(bounded, capabilities),
    `setpriv --bounding-set=-all,+chown,+kill --inh-caps=-all,+kill --ambient-caps=-all,+kill -- ${command}`,
  );
  // Where the unit says nothing systemd lists all of them.
  assert.equal(startOf(SIMPLE, { CapabilityBoundingSet: 'cap_chown cap_kill' }), command);
});

test('prefixes of the command line', () => {
  const line = (text: string) => dropIn(unit(`[Service]\nExecStart=${text}\n`, { User: 'u' }), TIDEOVER, groupsOf).text;
  assert.match(line('-/bin/x'), /^ExecStart=-\+\/usr.* setpriv .* \/bin\/x$/m);
  assert.match(line(':/bin/x'), /^ExecStart=:\+\/usr/m);
  assert.match(line('+/bin/x'), /^ExecStart=\+\/usr.* run cache -- \/bin\/x$/m);
  assert.throws(() => line('@/bin/x y'), /another name/);
});

test('lines that go on, sections, comments and empty values', () => {
  const file =
    '[Service]\n#ExecStart=/no\nExecStart=/bin/a \\\n  # a comment\n  b\\\n  c\n[Install]\nExecStart=/other\n';
  assert.deepEqual(
    execStarts([file]).map((line) => line.split(/\s+/)),
    [['/bin/a', 'b', 'c']],
  );
  assert.deepEqual(execStarts([file, '[Service]\nExecStart=\nExecStart = /bin/d\n']), ['/bin/d']);
  assert.deepEqual(execStarts([file, '[Service]\nExecStart=\n']), []);
});

test('what cannot be kept is refused with its reason', () => {
  for (const [properties, why] of [
    [{ LoadState: 'not-found' }, /no such unit/],
    [{ Type: 'forking' }, /background/],
    [{ Type: 'dbus' }, /message bus/],
    [{ Type: 'oneshot' }, /ends by itself/],
    [{ DynamicUser: 'yes' }, /DynamicUser/],
    [{ RootDirectory: '/srv' }, /RootDirectory/],
    [{ TriggeredBy: 'cache.socket' }, /sockets/],
    [{ WatchdogUSec: '30s' }, /WatchdogSec/],
    [{ StandardInput: 'socket' }, /StandardInput/],
  ] as const) {
    const refused = (error: Error) => error instanceof UnsupportedError && why.test(error.message);
    assert.throws(() => dropIn(unit(SIMPLE, properties), TIDEOVER, groupsOf), refused, String(why));
  }
  assert.throws(() => dropIn(unit(`${SIMPLE}ExecStart=/bin/b\n`), TIDEOVER, groupsOf), /2 lines/);
  assert.throws(() => workloadOf('a\\x2db.service'), UnsupportedError);
  assert.equal(workloadOf('getty@tty1.service'), 'getty@tty1');
});

test('settings that do not apply any more are named', () => {
  const set = {
    Type: 'notify',
    PrivateTmp: 'yes',
    ProtectSystem: 'strict',
    SystemCallFilter: '',
    PrivateDevices: 'no',
  };
  const { notes, text } = dropIn(unit(SIMPLE, set), TIDEOVER, groupsOf);
  assert.match(notes.at(-1)!, /: PrivateTmp, ProtectSystem$/);
  assert.equal(notes.length, 2);
  // Else they would give it a mount namespace of its own.
  assert.match(text, /\nPrivateTmp=no\nProtectSystem=no\n$/);
});
