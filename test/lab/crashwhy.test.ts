/**
 * Kernels that died of something known: `crash why` names it, with evidence that stands in the dump. Tasks and stacks are compared
 * with what those kernels said of themselves before.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type Cause, type CrashDump, crashDump } from '../../lab/crashes.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import { Kernel } from '../../src/crash/kernel/kernel.ts';
import { openDumpFiles } from '../../src/crash/open.ts';
import { tideover } from './commands.ts';
import { compareStacks, compareTasks } from './truth.ts';

const folder = temporaryFolder();
after(() => removeTemporary(folder));

interface Named {
  readonly pid: number;
  readonly comm: string;
  readonly task: string;
}

interface Answer {
  readonly headline: string;
  readonly cause: string;
  readonly signature: { readonly hash: string; readonly parts: readonly string[] };
  readonly taint: string;
  readonly modules: readonly string[];
  readonly crash: Named & {
    readonly frames: readonly { readonly symbol: string }[];
    readonly fault: null | {
      readonly symbol: string;
      readonly module: string;
      readonly instruction: string;
      readonly address: string;
      readonly registers: Readonly<Record<string, string>>;
    };
  };
  readonly findings: readonly {
    readonly kind: string;
    readonly weight: string;
    readonly text: string;
    readonly details: readonly string[];
    readonly evidence: readonly (Partial<Named> & {
      readonly address?: string;
      readonly log?: string;
      readonly what?: string;
    })[];
  }[];
  readonly locks: readonly {
    readonly address: string;
    readonly kind: string;
    readonly symbol: string | null;
    readonly state: string;
    readonly holders: readonly (Named & { readonly proof: string })[];
  }[];
  readonly waits: readonly (Named & { readonly lock: string; readonly wanted: string; readonly caller: string })[];
  readonly deadlocks: readonly (readonly Named[])[];
  readonly partial?: true;
}

/** The answer about a dump, whose tasks and stacks are as they were. @param since names of tasks that were started at last */
async function ask(cause: Cause, since: readonly string[] = []): Promise<{ answer: Answer; dump: CrashDump }> {
  const dump = await crashDump(cause);
  const source = openDumpFiles([dump.vmcore]);
  try {
    const kernel = new Kernel(source);
    compareTasks(kernel, dump.truth, ['S', 'I'], since);
    compareStacks(kernel, dump.truth, dump.vmcore);
    assert.deepEqual(kernel.gaps.list, []);
  } finally {
    source.close();
  }
  const answer = JSON.parse(await tideover('crash', 'why', dump.vmcore, '--json')) as Answer;
  assert.equal(answer.partial, undefined);
  checkEvidence(answer, dump);
  return { answer, dump };
}

/** Every statement has some, lines of the log were printed, and tasks are those of the dump. */
function checkEvidence({ findings }: Answer, dump: CrashDump): void {
  const console = readFileSync(dump.console, 'utf8');
  for (const { text, evidence } of findings) {
    assert.ok(evidence.length > 0, text);
    for (const { log, address, task, what } of evidence) {
      if (log !== undefined) assert.ok(console.includes(log), log);
      else assert.match(address ?? task ?? '', /^0x[0-9a-f]{16}$/, what);
    }
  }
}

/** Of the findings, those of these kinds. A machine that was very busy may have given cause to others. */
function kindsOf({ findings }: Answer, ...kinds: readonly string[]): string[] {
  return findings.filter(({ kind, weight }) => weight !== 'note' && kinds.includes(kind)).map(({ kind }) => kind);
}

/** Who waits for which lock, held by whom. */
function waitsOf({ waits, locks }: Answer): string[] {
  return waits.map(({ comm, wanted, lock }) => {
    const { kind, symbol, holders } = locks.find(({ address }) => address === lock)!;
    return [comm, wanted, kind, symbol, ...holders.map((holder) => `${holder.comm} ${holder.proof}`)].join(' ');
  });
}

test('a NULL pointer in a module, beside a deadlock and objects that it has lost', async () => {
  const { answer, dump } = await ask('oops');
  assert.deepEqual(Object.keys(answer), [
    ...[
      'headline',
      'release',
      'version',
      'time',
      'uptime',
      'cause',
      'signature',
      'taint',
      'modules',
      'crash',
      'findings',
    ],
    ...['locks', 'waits', 'deadlocks'],
  ]);
  assert.deepEqual(Object.keys(answer.findings[0]!), ['kind', 'weight', 'text', 'details', 'evidence']);
  assert.equal(answer.cause, 'oops');
  assert.match(
    answer.headline,
    /^A NULL pointer was followed \(address 0x10\) in fault_oops\+0x[0-9a-f]+ \[fault\], in task sh \(\d+\) on CPU \d\.$/,
  );
  const { fault } = answer.crash;
  assert.deepEqual([fault?.symbol, fault?.module, fault?.address], ['fault_oops', 'fault', '0x10']);
  assert.match(fault!.instruction, /^mov 0x10\(%rdi\),%rax$/);
  const printed = /RIP: 0010:fault_oops\+0x.*?RDI: ([0-9a-f]{16})/s.exec(readFileSync(dump.console, 'utf8'))!;
  assert.equal(BigInt(fault!.registers.rdi!), BigInt(`0x${printed[1]}`));
  assert.ok(answer.findings[0]!.details.includes('rdi is 0'));
  assert.deepEqual(answer.signature.parts.slice(0, 4), [
    'oops',
    'fault:fault_oops',
    'fault:fault_set',
    'param_attr_store',
  ]);
  assert.deepEqual([answer.taint, answer.modules], ['OE', ['fault']]);
  assert.deepEqual(waitsOf(answer).sort(), [
    'fault_backward lock mutex fault_first [fault] fault_forward owner',
    'fault_changer write rw_semaphore fault_shared [fault] fault_keeper last-reader',
    'fault_forward lock mutex fault_second [fault] fault_backward owner',
    'fault_keeper lock mutex fault_first [fault] fault_forward owner',
    'fault_reader read rw_semaphore fault_tree [fault] fault_writer owner',
    'fault_user lock semaphore fault_slots [fault]',
    'fault_writer lock mutex fault_first [fault] fault_forward owner',
  ]);
  const [deadlock] = answer.deadlocks;
  assert.deepEqual(deadlock!.map(({ comm }) => comm).sort(), ['fault_backward', 'fault_forward']);
  assert.deepEqual(kindsOf(answer, 'oops', 'deadlock', 'leak', 'blocked'), [
    'oops',
    'deadlock',
    'leak',
    'blocked',
    'blocked',
    'blocked',
    'blocked',
  ]);
  const leak = answer.findings.find(({ kind }) => kind === 'leak')!;
  assert.match(leak.text, /^the slab cache fault_request has 8\d MB, \d+% of memory, in 1600\d\d objects/);
  assert.match(
    leak.details[1]!,
    /^of \d+ that were looked at, \d+ have at 0x10 the address of fault_request_done \[fault\]$/,
  );
  const text = await tideover('crash', 'why', dump.vmcore);
  assert.match(text, /waits for the mutex fault_first \[fault\] at 0x[0-9a-f]+, which is held by\n/);
  // As it is passed on: without the pages of users, of files and of free memory.
  const filtered = join(folder, 'filtered');
  await tideover('crash', 'filter', '-l', '-d', '31', dump.vmcore, filtered);
  assert.deepEqual(JSON.parse(await tideover('crash', 'why', filtered, '--json')), answer);
});

test('a soft lockup, after a list was found to be corrupt', async () => {
  const { answer } = await ask('spin', ['fault_spin', 'fault_eager']);
  assert.equal(answer.cause, 'soft-lockup');
  assert.match(
    answer.headline,
    /^Soft lockup of CPU \d: it was in fault_spin\+0x[0-9a-f]+ \[fault\], in task fault_spin \(\d+\)/,
  );
  assert.deepEqual(kindsOf(answer, 'soft-lockup', 'oops', 'list-corruption'), ['soft-lockup', 'oops']);
  assert.match(answer.findings[1]!.text, /in task fault_corrupt \(\d+\): list_add corruption/);
  assert.deepEqual(answer.signature.parts.slice(0, 2), ['soft-lockup', 'fault:fault_spin']);
  assert.equal(answer.crash.fault, null);
  assert.ok(
    answer.findings.some(({ text }) =>
      /^CPU \d spins for the spinlock fault_lock \[fault\] in fault_eager\+0x\w+ \[fault\], in task fault_eager/.test(
        text,
      ),
    ),
    JSON.stringify(answer.findings),
  );
});

test('a hung task, which waits for a file system that is frozen', async () => {
  const { answer } = await ask('hang');
  assert.equal(answer.cause, 'hung-task');
  assert.match(
    answer.headline,
    /^Hung task: sh \(\d+\) waits in mnt_want_write for the percpu_rw_semaphore of the file system on loop1 .*it is held for writing: the file system is frozen; by whom is not kept\.$/,
  );
  assert.deepEqual(waitsOf(answer), ['sh read percpu_rw_semaphore of the file system on loop1']);
  assert.equal(answer.crash.comm, 'khungtaskd');
  assert.ok(answer.signature.parts.includes('mnt_want_write'));
});

test('a lack of memory, while tasks wait for a thread that writes', async () => {
  const { answer } = await ask('oom', ['user']);
  assert.equal(answer.cause, 'oom');
  assert.match(answer.headline, /^Memory ran out, in task \S+ \(\d+\) on CPU \d; most had user \(\d+\): 3\d\d MB\.$/);
  assert.deepEqual(answer.signature.parts, ['oom', 'user']);
  assert.deepEqual(
    waitsOf(answer).map((wait) => wait.replace(/ +/g, ' ')),
    ['user_sharer lock mutex user_writer owner', 'user_other write rw_semaphore user_writer owner'],
  );
  assert.deepEqual(
    answer.waits.map(({ caller }) => caller),
    ['fdget_pos', 'shmem_file_write_iter'],
  );
});

if (process.env.TIDEOVER_FULL) {
  test('a stack that was used up', async () => {
    const { answer } = await ask('recurse');
    assert.equal(answer.cause, 'stack-overflow');
    assert.match(answer.headline, /^A kernel stack was used up in fault_recurse\+0x[0-9a-f]+ \[fault\], in task sh/);
    assert.deepEqual(answer.signature.parts.slice(0, 3), ['stack-overflow', 'fault:fault_recurse', 'fault:fault_set']);
  });
}
