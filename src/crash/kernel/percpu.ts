/** Variables that every CPU has of its own (include/linux/percpu.h): an address, and for each CPU what is added to it. */

import { FormatError } from '../../errors.ts';
import type { Kallsyms } from './kallsyms.ts';
import type { VirtualMemory } from './memory.ts';

/** CONFIG_NR_CPUS of the largest configuration (MAXSMP). */
const MAX_CPUS = 8192;

export class PerCpu {
  readonly #memory: VirtualMemory;
  readonly #offsets: bigint;
  /**
   * Numbers of the CPUs that ran: those that were online, or all that are present where the dump has the registers of as many.
   * panic() stops the other CPUs, and takes them offline if no capture kernel is loaded (stop_this_cpu()).
   */
  readonly online: readonly number[];

  /** @param registers of so many CPUs are in the dump's notes */
  constructor(memory: VirtualMemory, symbols: Kallsyms, registers: number) {
    const offsets = symbols.find('__per_cpu_offset');
    const online = symbols.find('__cpu_online_mask');
    const present = symbols.find('__cpu_present_mask');
    if (offsets === undefined || online === undefined) {
      const expected = '__per_cpu_offset and __cpu_online_mask';
      throw new FormatError({ file: 'kallsyms', field: 'symbols of CPUs', expected, found: 'not both' });
    }
    this.#memory = memory;
    this.#offsets = offsets;
    const limitAt = symbols.find('nr_cpu_ids');
    const limit = limitAt === undefined ? 64 : Math.min(memory.u32(limitAt), MAX_CPUS);
    const numbers = (mask: bigint): number[] => {
      const bits = memory.read(mask, Math.ceil(limit / 64) * 8);
      return Array.from({ length: limit }, (_, cpu) => cpu).filter((cpu) => bits[cpu >> 3]! & (1 << (cpu & 7)));
    };
    const [ran, there] = [numbers(online), present === undefined ? [] : numbers(present)];
    this.online = ran.length !== registers && there.length === registers ? there : ran;
  }

  /** Address of a CPU's own instance. */
  address(symbol: bigint, cpu: number): bigint {
    return BigInt.asUintN(64, symbol + this.#memory.u64(this.#offsets + BigInt(cpu * 8)));
  }
}
