/** A line for the kernel's log, and so on the console, whatever becomes of this program's output. */
import { writeFileSync } from 'node:fs';

/** KERN_WARNING: `quiet` leaves it on the console. */
export function say(text: string): void {
  writeFileSync('/dev/kmsg', `<4>tideover: ${text.replaceAll('\n', ' ').slice(0, 900)}\n`);
}
