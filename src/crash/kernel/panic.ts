/** What the kernel's last words were. */
import { textOf } from '../../abi/text.ts';
import type { LogRecord } from './printk.ts';

/** From what says most to what says least: kernel/panic.c, arch/x86/kernel/dumpstack.c, arch/x86/mm/fault.c, drivers/tty/sysrq.c */
const words = [
  /Kernel panic - not syncing: .*/,
  /(?:BUG|Oops|general protection fault|kernel BUG at|Unable to handle kernel|divide error|double fault)\b.*/,
  /sysrq: Trigger a crash/,
];

/** The message of the panic, or what was said before a kernel stopped without one; undefined for one that ran. */
export function panicMessage(log: readonly LogRecord[]): string | undefined {
  const lines = log.filter(({ facility }) => facility === 0).flatMap(({ text }) => textOf(text).split('\n'));
  for (const word of words) {
    const found = lines.findLast((line) => word.test(line));
    if (found !== undefined) return word.exec(found)![0];
  }
  return undefined;
}
