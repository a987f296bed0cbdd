/** CPUs that did nothing but ask for a spinlock when the kernel stopped. A spinlock does not say who holds it. */
import { addressEvidence, frameText, plainName, type Scene, taskEvidence, taskText, variableText } from './scene.ts';
import type { Finding } from './verdict.ts';

/** kernel/locking/qspinlock.c, qrwlock.c: they call nothing, so that the lock stays in their first argument. */
const SLOW_PATH = /^(?:native_|__pv_)?queued_(?:spin|read|write)_lock_slowpath$/;
const LOCKING = /^(?:_raw_|__raw_|do_raw_|queued_|rt_spin_lock)/;

export function findSpinning(scene: Scene): Finding[] {
  const { kernel } = scene;
  return scene.tasks.flatMap((task): Finding[] => {
    if (!task.running) return [];
    const frames = scene.frames(task);
    const at = frames.findIndex(({ symbol }) => SLOW_PATH.test(plainName(symbol)));
    const frame = frames[at];
    if (frame === undefined) return [];
    const caller = frames.slice(at + 1).find(({ symbol }) => !LOCKING.test(symbol));
    const lock = frame.interrupted ? scene.stack(task).frames[at]?.registers?.rdi : undefined;
    const variable = lock === undefined ? undefined : variableText(kernel.symbols.lookup(lock));
    const name =
      variable === undefined
        ? `a spinlock${lock === undefined ? '' : ` at 0x${lock.toString(16)}`}`
        : `the spinlock ${variable}`;
    return [
      {
        kind: 'blocked',
        weight: 'related',
        text: `CPU ${task.cpu} spins for ${name}${caller === undefined ? '' : ` in ${frameText(caller)}`}, in task ${taskText(task)}`,
        details: [],
        evidence: [
          taskEvidence(task, `ran on CPU ${task.cpu}`),
          addressEvidence(frame.pc, 'where it spins'),
          ...(lock === undefined ? [] : [addressEvidence(lock, 'the spinlock')]),
        ],
      },
    ];
  });
}
