/** What a report tells of a crashed kernel, as plain data: collect.ts makes it out of a dump, page.ts makes a page of it. */

export interface Report {
  /** Name of the dump's file. */
  readonly dump: string;
  readonly system: SystemFacts;
  /** The kernel's last words, or undefined for a kernel that ran. */
  readonly panic: string | undefined;
  readonly verdict: VerdictFacts | undefined;
  readonly waits: WaitGraph;
  readonly log: readonly LogLine[];
  /** That of the task that crashed the kernel comes first, then those of tasks that wait and cannot be disturbed. */
  readonly stacks: readonly StackGroup[];
  readonly memory: MemoryPicture | undefined;
  readonly modules: readonly ModuleRow[];
  /** From where what is said is known. */
  readonly sources: readonly { readonly what: string; readonly from: string }[];
  /** What could not be read, and why. */
  readonly missing: readonly string[];
}

export interface SystemFacts {
  readonly nodename: string | undefined;
  readonly release: string | undefined;
  readonly version: string | undefined;
  /** Seconds since 1970 at which it stopped. */
  readonly time: number | undefined;
  /** Seconds. */
  readonly uptime: number | undefined;
  readonly cpus: number | undefined;
  /** Load averages over 1, 5 and 15 minutes. */
  readonly load: readonly number[] | undefined;
  readonly tasks: number | undefined;
  /** Bytes of memory that the dump describes. */
  readonly memory: number;
  /** Letters; empty for none. */
  readonly taints: string | undefined;
}

/** What is said of the crash, and of the instruction at which it happened. */
export interface VerdictFacts {
  readonly headline: string;
  readonly findings: readonly FindingFacts[];
  readonly fault:
    | {
        readonly at: string;
        readonly instruction: string | undefined;
        readonly entry: string | undefined;
        readonly address: string | undefined;
        readonly registers: readonly (readonly [name: string, value: string])[];
      }
    | undefined;
  readonly signature: { readonly hash: string; readonly parts: readonly string[] } | undefined;
}

export interface FindingFacts {
  readonly weight: 'cause' | 'related' | 'note';
  readonly text: string;
  readonly details: readonly string[];
  readonly evidence: readonly string[];
}

export interface LogLine {
  /** Seconds since boot, as the kernel prints it. */
  readonly time: string;
  /** 0 emergency to 7 debug. */
  readonly level: number;
  readonly text: string;
}

export interface StackGroup {
  readonly tasks: readonly TaskFacts[];
  readonly frames: readonly FrameFacts[];
  /** Why the stack ends before it should. */
  readonly why: string | undefined;
  /** It is that of the task that crashed the kernel. */
  readonly crashed: boolean;
}

export interface TaskFacts {
  readonly pid: number;
  readonly comm: string;
  readonly state: string;
  readonly cpu: number;
  readonly running: boolean;
  /** Of its task_struct, in hexadecimal. */
  readonly address: string;
}

export interface FrameFacts {
  readonly pc: string;
  /** `name+0x1f`, or nothing. */
  readonly symbol: string | undefined;
  readonly module: string | undefined;
  readonly interrupted: boolean;
  readonly rescued: boolean;
}

/** What memory was used for. */
export interface MemoryPicture {
  /** Pages that the kernel had. */
  readonly total: number;
  /** They add up to `total`. */
  readonly kinds: readonly { readonly kind: MemoryKind; readonly pages: number }[];
  /** The largest, by the memory of their slabs. */
  readonly slabs: readonly { readonly name: string; readonly bytes: number; readonly objects: number }[];
}

export const memoryKinds = [
  'processes',
  'files',
  'shared memory',
  'slabs, reclaimable',
  'slabs',
  'kernel stacks',
  'page tables',
  'other use by the kernel',
  'free',
] as const;
export type MemoryKind = (typeof memoryKinds)[number];

export interface ModuleRow {
  readonly name: string;
  readonly base: string;
  /** Bytes. */
  readonly size: number;
  /** Letters. */
  readonly taints: string;
  readonly state: string;
  readonly usedBy: readonly string[];
  /** Its code is on the stack of the task that crashed the kernel. */
  readonly crashed: boolean;
}

/** Who waits for what, and who holds it. */
export interface WaitGraph {
  readonly nodes: readonly WaitNode[];
  /** By the nodes' ids, from who waits to what is waited for, and from there to who holds it. */
  readonly edges: readonly WaitEdge[];
  /** Arrows that the picture has no room for. */
  readonly left: number;
}

export interface WaitNode {
  readonly id: string;
  readonly kind: 'task' | 'lock';
  /** A short first line and what stands below it. */
  readonly title: string;
  readonly detail: string;
}

export interface WaitEdge {
  readonly from: string;
  readonly to: string;
  readonly label: string;
  /** It is part of a deadlock. */
  readonly deadlock: boolean;
}
