/** How much memory there is: /proc/meminfo, proc_meminfo(5). */
import { readProcText } from './proc.ts';

/** Bytes that programs can have without swapping. */
export function availableMemory(): number {
  return Number(/^MemAvailable:\s+(\d+) kB$/m.exec(readProcText('/proc/meminfo'))?.[1] ?? 0) * 1024;
}
