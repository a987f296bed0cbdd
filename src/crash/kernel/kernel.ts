/**
 * A kernel out of its dump: what it says of itself, its symbols, types, modules, CPUs, tasks and stacks.
 *
 *   VMCOREINFO ─► page tables ─► kallsyms ─► BTF ─► modules ─► ORC
 *                     └─► log        └─► CPUs, tasks ─► stacks
 *
 * Each step is made when it is asked for, and says by FormatError or HoleError what it lacks; what does not need it still works.
 * What is missing within a list goes to `gaps`.
 */
import { Elf64_Nhdr } from '../../abi/elf.ts';
import { elf_prstatus } from '../../abi/elfcore.ts';
import { readNotes } from '../../abi/elfnote.ts';
import { NT_PRSTATUS } from '../../abi/ptrace.ts';
import { FormatError, HoleError } from '../../errors.ts';
import { AddressSpace } from '../memory.ts';
import { Btf } from './btf.ts';
import { Kallsyms } from './kallsyms.ts';
import { list } from './lists.ts';
import { type Module, readModules } from './modules.ts';
import { ORC_ENTRY_SIZE, Orc, OrcFormat, type OrcTable } from './orc.ts';
import { PerCpu } from './percpu.ts';
import { ReadableKernel } from './readable.ts';
import { Symbols } from './symbols.ts';
import { isGone, readTask, readTasks, sleepingRegisters, type Task } from './tasks.ts';
import { Types } from './types.ts';
import { type Registers, readRegisters, type Stack, Unwinder } from './unwind.ts';

/** The largest kernels' types have 6 MB. */
const MAX_BTF = 2 ** 26;

/** What runs on a CPU. */
export interface Cpu {
  readonly number: number;
  /** Address of the task. */
  readonly current: bigint;
  /** As they were when the CPU was stopped; undefined where the dump does not have them. */
  readonly registers: (Registers & { readonly user: boolean }) | undefined;
}

export class Kernel extends ReadableKernel {
  /** The kernel's own symbols. */
  get kallsyms(): Kallsyms {
    return this.#once('kallsyms', () => {
      const kallsyms = new Kallsyms(this.memory, this.info);
      const { named, count, firstMissing } = kallsyms;
      if (firstMissing !== undefined) this.gaps.note(`names of ${count - named} of ${count} symbols`, firstMissing);
      return kallsyms;
    });
  }

  /** With those of modules, where they can be read. */
  get symbols(): Symbols {
    return this.#once(
      'symbols',
      () => new Symbols(this.kallsyms, () => this.gaps.try('modules', () => this.modules) ?? []),
    );
  }

  get types(): Types {
    return this.#once('types', () => {
      const [start, end] = [this.#symbol('__start_BTF'), this.#symbol('__stop_BTF')];
      const length = Number(end - start);
      if (length <= 0 || length > MAX_BTF) {
        const expected = `at most ${MAX_BTF} bytes`;
        throw new FormatError({ file: 'kallsyms', field: '__stop_BTF - __start_BTF', expected, found: `${length}` });
      }
      return new Types(new Btf(this.memory.read(start, length), 'BTF of the kernel'));
    });
  }

  get modules(): readonly Module[] {
    return this.#once('modules', () => {
      // A kernel may be built without them (CONFIG_MODULES).
      const head = this.kallsyms.find('modules');
      return head === undefined ? [] : readModules(this.memory, this.types, head, this.gaps);
    });
  }

  /** Types of modules, by name of the module (kernel/bpf/btf.c, btf_modules). */
  get moduleTypes(): ReadonlyMap<string, Types> {
    return this.#once('moduleTypes', () => {
      const { types, memory, gaps } = this;
      const found = new Map<string, Types>();
      const head = this.kallsyms.find('btf_modules');
      if (head === undefined || !types.has('btf_module')) return found;
      for (const entry of gaps.each(
        'list of modules with types',
        list(memory, head, types.offset('btf_module', 'list')),
      )) {
        gaps.try(`types of the module at 0x${entry.toString(16)}`, () => {
          const btf = memory.u64(entry + types.offset('btf_module', 'btf'));
          const name = memory.string(btf + types.offset('btf', 'name'), 64);
          const size = memory.u32(btf + types.offset('btf', 'data_size'));
          const bytes = memory.read(memory.u64(btf + types.offset('btf', 'data')), Math.min(size, MAX_BTF));
          found.set(name, new Types(new Btf(bytes, `BTF of ${name}`, types.btf)));
        });
      }
      return found;
    });
  }

  get perCpu(): PerCpu {
    return this.#once('perCpu', () => new PerCpu(this.memory, this.kallsyms, this.#registerNotes.length));
  }

  get orc(): Orc {
    return this.#once('orc', () => {
      const ips = this.#symbol('__start_orc_unwind_ip');
      const count = Number(this.#symbol('__stop_orc_unwind_ip') - ips) / 4;
      const [start, end] = [this.#symbol('_stext'), this.#symbol('_einittext')];
      const table: OrcTable = {
        contains: (pc) => pc >= start && pc < end,
        ips,
        entries: this.#symbol('__start_orc_unwind'),
        count,
      };
      const sample = Orc.sample(this.memory, table);
      const format = OrcFormat.detect(this.types.btf, sample);
      if (format === undefined || sample.length < ORC_ENTRY_SIZE) {
        const expected = 'struct orc_entry and its tables';
        throw new FormatError({ file: 'kernel', field: 'ORC', expected, found: 'not both' });
      }
      return new Orc(this.memory, format, [table, ...this.modules.flatMap(({ orc }) => orc ?? [])]);
    });
  }

  /** The CPUs that ran. */
  get cpus(): readonly Cpu[] {
    return this.#once('cpus', () => {
      const { memory, types, perCpu } = this;
      const notes = this.#registerNotes;
      return perCpu.online.flatMap((number, i) => {
        const note = notes.length === perCpu.online.length ? notes[i]?.desc : this.#crashNote(number);
        const registers = note === undefined ? undefined : readRegisters(note.subarray(elf_prstatus.offsets.pr_reg));
        const hot = this.kallsyms.find('pcpu_hot');
        const pointer =
          hot !== undefined && types.has('pcpu_hot', 'current_task')
            ? hot + types.offset('pcpu_hot', 'current_task')
            : this.#symbol('current_task');
        const what = `what runs on CPU ${number}`;
        const current = this.gaps.try(what, () => memory.u64(perCpu.address(pointer, number)));
        return current === undefined ? [] : [{ number, current, registers }];
      });
    });
  }

  /** Idle tasks, one for each CPU, and then all others. */
  get tasks(): readonly Task[] {
    return this.#once('tasks', () => {
      const { memory, types, gaps } = this;
      const running = new Set((gaps.try('CPUs', () => this.cpus) ?? []).map(({ current }) => current));
      const init = this.#symbol('init_task');
      const idle = (gaps.try('CPUs', () => this.perCpu.online) ?? []).flatMap((cpu) => {
        const task = gaps.try(`idle task of CPU ${cpu}`, () => {
          const queue = this.perCpu.address(this.#symbol('runqueues'), cpu);
          return readTask(memory, types, memory.u64(queue + types.offset('rq', 'idle')), running);
        });
        return task ?? [];
      });
      return [...idle, ...readTasks(memory, types, init, running, gaps)];
    });
  }

  /** The task that crashed the kernel: what runs on the CPU that did; undefined where none did. */
  get panicTask(): Task | undefined {
    return this.#once('panicTask', () => {
      const at = this.kallsyms.find('panic_cpu');
      const cpu = at === undefined ? undefined : this.gaps.try('panic_cpu', () => this.memory.i32(at));
      const on = this.cpus.find(({ number }) => number === cpu);
      return on === undefined ? undefined : this.tasks.find(({ address }) => address === on.current);
    });
  }

  /** The kernel's part of a task's stack. A task that has exited has none. */
  stack(task: Task): Stack {
    if (isGone(task)) return { frames: [], end: 'end' };
    const cpu = task.running ? this.cpus.find(({ current }) => current === task.address) : undefined;
    if (cpu?.registers?.user) return { frames: [], end: 'user', user: cpu.registers };
    if (task.running && cpu?.registers === undefined) {
      return { frames: [], end: 'unknown', why: 'it was running, and its registers are not in the dump' };
    }
    const unwinder = this.#once('unwinder', () => new Unwinder(this.memory, this.orc, this.symbols));
    if (cpu?.registers !== undefined) return unwinder.unwind(cpu.registers, true);
    const registers = sleepingRegisters(this.memory, this.types, task);
    // A task that has not run yet begins with the first instruction of ret_from_fork_asm(), which no call returns to.
    return unwinder.unwind(registers, this.symbols.lookup(registers.ip)?.offset === 0);
  }

  /** A process's own address space, for a task with an mm. @throws HoleError */
  userSpace({ mm }: Task): AddressSpace {
    const { space } = this.memory;
    const top = this.memory.u64(mm + this.types.offset('mm_struct', 'pgd'));
    const root = space.physical(top);
    if (typeof root !== 'number') throw new HoleError(top, root.reason, root.detail);
    return new AddressSpace(space.memory, { ...space.tables, root });
  }

  /** Address of a symbol. @throws FormatError where the kernel has none of this name */
  #symbol(name: string): bigint {
    const address = this.kallsyms.find(name);
    if (address !== undefined) return address;
    throw new FormatError({ file: 'kallsyms', field: name, expected: 'a symbol of this name', found: 'none' });
  }

  /** Of each CPU in the order of their numbers, unless some could not be stopped. */
  get #registerNotes() {
    return this.source.notes.filter(({ name, type }) => name === 'CORE' && type === NT_PRSTATUS);
  }

  /** What a CPU left of its registers when the kernel crashed (crash_notes, kernel/crash_core.c). */
  #crashNote(cpu: number): Uint8Array | undefined {
    return this.gaps.try(`registers of CPU ${cpu}`, () => {
      const at = this.kallsyms.find('crash_notes');
      if (at === undefined) return undefined;
      const note = this.perCpu.address(this.memory.u64(at), cpu);
      const bytes = this.memory.read(note, Elf64_Nhdr.size + 8 + elf_prstatus.size);
      return readNotes(bytes).find(({ type }) => type === NT_PRSTATUS)?.desc;
    });
  }

  readonly #made = new Map<string, unknown>();

  /** What is made once, or has failed once. */
  #once<T>(name: string, make: () => T): T {
    if (!this.#made.has(name)) {
      try {
        this.#made.set(name, make());
      } catch (error) {
        this.#made.set(name, new Failed(error));
      }
    }
    const made = this.#made.get(name);
    if (made instanceof Failed) throw made.error;
    return made as T;
  }
}

class Failed {
  readonly error: unknown;

  constructor(error: unknown) {
    this.error = error;
  }
}
