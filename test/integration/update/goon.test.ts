/** Trees that go on from copies on the disk: who is told of it, and what keeps none of them from it. */
import assert from 'node:assert/strict';
import { rootTest as test } from '../root.ts';
import { inNamespace, NAMESPACE } from './namespace.ts';

const path = (relative: string) => new URL(relative, import.meta.url).pathname;

/** Starts a tree and ends it with a copy on the disk; then a program, after which it ends by itself. */
const SCRIPT = `${NAMESPACE}
unshare -p -f setsid sh -c 'echo ready >"$FOLDER/ready"; until [ -e "$FOLDER/end" ]; do sleep 0.1; done; echo ok >"$FOLDER/ok"' \\
  </dev/null >/dev/null 2>&1 &
until [ -s "$FOLDER/ready" ]; do sleep 0.1; done
export TREE=$(pgrep -P $!)
trap 'touch "$FOLDER/end"; kill -9 $TREE 2>/dev/null || true' EXIT
tideover checkpoint -t $TREE -D /var/lib/tideover/spill/pid-$TREE >&2
"$NODE" --input-type=module-typescript -e "$PROGRAM"
touch "$FOLDER/end"
until [ -s "$FOLDER/ok" ]; do sleep 0.1; done
`;

const HELD_AND_RESUMED = `
import { closeSync, openSync } from 'node:fs';
import { LOCK_EX, LOCK_NB } from '${path('../../../src/abi/fcntl.ts')}';
import { flock } from '${path('../../../src/sys/files.ts')}';
import { LOCK } from '${path('../../../src/update/alone.ts')}';
import { holdAndResume } from '${path('../../../src/update/resume.ts')}';
const said: unknown[] = [];
const say = (what: string) => {
  const fd = openSync(LOCK, 'a');
  said.push([what, flock.attempt({ fd, operation: LOCK_EX | LOCK_NB }) === 0 ? 'free' : 'locked']);
  closeSync(fd);
};
const options = { patience: 1000, program: undefined, warn: (text: string) => console.error(text) };
await holdAndResume(options, {
  held: () => say('held'),
  time: async () => say('time'),
  done: ({ restored, failed }) => say(\`\${restored.length} restored, \${failed.length} failed\`),
});
say('over');
console.log(JSON.stringify(said));
`;

const PUT_BACK = `
import { putBack } from '${path('../../../src/update/undo.ts')}';
const name = 'pid-' + process.env.TREE;
// Of a process that has ended.
const tree = { name, node: 'tree/' + name, pid: Number(process.env.TREE), starttime: 1 };
const record = { state: 'frozen', bootId: '', from: 'this', to: 'that', trees: [tree], steps: [] } as const;
const called: string[] = [];
const ends = ['first', 'second'].map((each) => () => {
  called.push(each);
  throw new Error('it does not end');
});
console.log(JSON.stringify([name, putBack(record, ends), called]));
`;

test('what became of trees is told before another one can be at it', () => {
  const [said] = inNamespace(SCRIPT, { PROGRAM: HELD_AND_RESUMED });
  const locked = ['held', 'time', '1 restored, 0 failed'].map((what) => [what, 'locked']);
  assert.deepEqual(JSON.parse(said!), [...locked, ['over', 'free']]);
});

test('trees that do not end keep the others from nothing when an update is undone', () => {
  const [said] = inNamespace(SCRIPT, { PROGRAM: PUT_BACK });
  const [name, back, called] = JSON.parse(said!);
  assert.deepEqual([back, called], [`restored here: ${name}`, ['first', 'second']]);
});
