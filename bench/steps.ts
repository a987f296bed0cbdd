/** One system call within a stopped process of ours, with processors that are kept from sleeping and with ones that are not. */
import { NR } from '../src/abi/unistd.ts';
import { freezeTree } from '../src/process/freeze.ts';
import { Haste } from '../src/process/haste.ts';
import { endIdle, startIdle } from '../src/process/idle.ts';
import { enterAll, Guest, leaveAll } from '../src/process/task.ts';
import { vdsoOf } from '../src/process/vdso.ts';
import { sleep } from '../src/sys/process.ts';
import { type BenchResult, median } from './bench.ts';

export const name = 'steps';
export const summary =
  'how long one step of a stopped process takes while processors are kept awake, against without that';

/** Between two steps, in ns: the processor that the process runs on has nothing else to do. */
const PAUSE = 500_000;

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  const pid = startIdle(true);
  const frozen = freezeTree(pid, 1000);
  const guests = frozen.processes.map((process) => new Guest(process, vdsoOf(pid)()));
  try {
    enterAll(guests);
    const [remote] = guests[0]!.remotes;
    const step = (): number => {
      sleep(PAUSE);
      const start = performance.now();
      remote!.call(NR.getppid);
      remote!.run();
      return 1000 * (performance.now() - start);
    };
    const times = { awake: [] as number[], asleep: [] as number[] };
    for (let round = 0; round < (small ? 10 : 1000); round++) {
      times.asleep.push(step());
      using _haste = new Haste();
      times.awake.push(step());
    }
    leaveAll(guests);
    const [ours, theirs] = [median(times.awake), median(times.asleep)];
    return { comparisons: [{ what: 'step', reference: 'asleep', unit: 'us', ours, theirs, ratio: ours / theirs }] };
  } finally {
    frozen.release();
    for (const guest of guests) guest[Symbol.dispose]();
    endIdle(pid);
  }
}
