/** Variables that every CPU has of its own (include/linux/percpu.h): an address, and for each CPU what is added to it. */

import { FormatError } from '../../errors.ts';
import type { Kallsyms } from './kallsyms.ts';
import type { VirtualMemory } from './memory.ts';

/** CONFIG_NR_CPUS of the largest configuration (MAXSMP). */
const MAX_CPUS = 8192;

export class PerCpu {
  readonly #memory: VirtualMemory;
  readonly #offsets: bigint;
  /** Numbers of the CPUs that were online. */
  readonly online: readonly number[];

  constructor(memory: VirtualMemory, symbols: Kallsyms) {
    const offsets = symbols.find('__per_cpu_offset');
    const mask = symbols.find('__cpu_online_mask');
    if (offsets === undefined || mask === undefined) {
      const expected = '__per_cpu_offset and __cpu_online_mask';
      throw new FormatError({ file: 'kallsyms', field: 'symbols of CPUs', expected, found: 'not both' });
    }
    this.#memory = memory;
    this.#offsets = offsets;
    const limitAt = symbols.find('nr_cpu_ids');
    const limit = limitAt === undefined ? 64 : Math.min(memory.u32(limitAt), MAX_CPUS);
    const bits = memory.read(mask, Math.ceil(limit / 64) * 8);
    this.online = Array.from({ length: limit }, (_, cpu) => cpu).filter((cpu) => bits[cpu >> 3]! & (1 << (cpu & 7)));
  }

  /** Address of a CPU's own instance. */
  address(symbol: bigint, cpu: number): bigint {
    return BigInt.asUintN(64, symbol + this.#memory.u64(this.#offsets + BigInt(cpu * 8)));
  }
}
