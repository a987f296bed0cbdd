/** All probes, in the order of the table, and what follows from them for each job of tideover. */
import { UnsupportedError } from '../../errors.ts';
import type { Answer } from './answer.ts';
import { unknown } from './answer.ts';
import { kernelConfigSource } from './config.ts';
import { btf, crashKernel, vmcoreinfo } from './crash.ts';
import * as kexec from './kexec.ts';
import { initramfsTools, kernel, memory, processors, systemd } from './machine.ts';
import * as pages from './pages.ts';
import { bootRegion, dax, devMem, hugePages, kexecHandover, liveUpdate, pmem } from './preserve.ts';
import * as processes from './processes.ts';
import * as tracing from './tracing.ts';

export const groups = [
  { id: 'checkpoint', title: 'Checkpoint and restore' },
  { id: 'kexec', title: 'Changing the kernel' },
  { id: 'preserve', title: 'Preserved memory' },
  { id: 'crash', title: 'Crash capture' },
  { id: 'machine', title: 'The machine' },
] as const;

export type Group = (typeof groups)[number]['id'];

interface Probe {
  readonly id: string;
  readonly group: Group;
  readonly title: string;
  readonly probe: () => Answer | Promise<Answer>;
}

const probes: readonly Probe[] = [
  { id: 'capabilities', group: 'checkpoint', title: 'Privileges', probe: processes.capabilities },
  { id: 'ptrace', group: 'checkpoint', title: 'ptrace', probe: tracing.ptraceScope },
  { id: 'seccomp_suspend', group: 'checkpoint', title: 'Suspending seccomp', probe: tracing.seccompSuspend },
  { id: 'rseq', group: 'checkpoint', title: 'rseq of others', probe: tracing.rseqConfiguration },
  { id: 'xsave', group: 'checkpoint', title: 'Extended registers', probe: tracing.extendedState },
  { id: 'clone3_set_tid', group: 'checkpoint', title: 'Choosing process ids', probe: processes.cloneSetTid },
  { id: 'namespaces', group: 'checkpoint', title: 'Namespaces', probe: processes.namespaces },
  { id: 'cgroup_freezer', group: 'checkpoint', title: 'cgroup v2 freezer', probe: processes.cgroupFreezer },
  { id: 'kcmp', group: 'checkpoint', title: 'kcmp', probe: processes.kcmpFiles },
  { id: 'set_mm_map', group: 'checkpoint', title: 'PR_SET_MM_MAP', probe: processes.setMmMap },
  { id: 'map_vdso', group: 'checkpoint', title: 'Placing the vdso', probe: processes.mapVdso },
  { id: 'timer_ids', group: 'checkpoint', title: 'Choosing timer ids', probe: processes.timerIds },
  { id: 'tcp_repair', group: 'checkpoint', title: 'TCP repair', probe: processes.tcpRepair },
  { id: 'io_uring', group: 'checkpoint', title: 'io_uring', probe: processes.ioUring },
  { id: 'pagemap_scan', group: 'checkpoint', title: 'PAGEMAP_SCAN', probe: pages.pagemapScan },
  { id: 'soft_dirty', group: 'checkpoint', title: 'Soft-dirty pages', probe: pages.softDirty },
  { id: 'userfaultfd', group: 'checkpoint', title: 'userfaultfd', probe: pages.userfault },

  { id: 'kexec_load', group: 'kexec', title: 'kexec_load', probe: kexec.kexecLoad },
  { id: 'kexec_file_load', group: 'kexec', title: 'kexec_file_load', probe: kexec.kexecFileLoad },
  { id: 'kexec_jump', group: 'kexec', title: 'kexec jump', probe: kexec.kexecJump },
  { id: 'kexec_setting', group: 'kexec', title: 'kexec allowed', probe: kexec.kexecSetting },
  { id: 'lockdown', group: 'kexec', title: 'No lockdown', probe: kexec.lockdown },

  { id: 'dev_mem', group: 'preserve', title: '/dev/mem', probe: devMem },
  { id: 'pmem', group: 'preserve', title: 'pmem drivers', probe: pmem },
  { id: 'dax', group: 'preserve', title: 'dax drivers', probe: dax },
  { id: 'huge_pages', group: 'preserve', title: 'Huge pages', probe: hugePages },
  { id: 'boot_region', group: 'preserve', title: 'Region at boot', probe: bootRegion },
  { id: 'luo', group: 'preserve', title: 'Live update (LUO)', probe: liveUpdate },
  { id: 'kho', group: 'preserve', title: 'Handover (KHO)', probe: kexecHandover },

  { id: 'crashkernel', group: 'crash', title: 'Reserved memory', probe: crashKernel },
  { id: 'vmcoreinfo', group: 'crash', title: 'vmcoreinfo', probe: vmcoreinfo },
  { id: 'btf', group: 'crash', title: 'BTF', probe: btf },

  { id: 'processors', group: 'machine', title: 'Processors', probe: processors },
  { id: 'memory', group: 'machine', title: 'Memory', probe: memory },
  { id: 'kernel_config', group: 'machine', title: 'Kernel configuration', probe: kernelConfigSource },
  { id: 'systemd', group: 'machine', title: 'systemd', probe: systemd },
  { id: 'initramfs', group: 'machine', title: 'initramfs tools', probe: initramfsTools },
];

/** In the order of the rows. */
export const probeIds: readonly string[] = probes.map(({ id }) => id);

export interface Row extends Answer {
  readonly id: string;
  readonly group: Group;
  readonly title: string;
}

/** What tideover is used for, and the rows it needs: one of each list in `needs`, better with all of `wishes`. */
const jobs: readonly { id: string; title: string; needs: readonly (readonly string[])[]; wishes: readonly string[] }[] =
  [
    {
      id: 'checkpoint',
      title: 'Checkpoint and restore processes',
      needs: [['ptrace'], ['clone3_set_tid'], ['kcmp'], ['set_mm_map']],
      wishes: [
        'capabilities',
        'namespaces',
        'seccomp_suspend',
        'rseq',
        'tcp_repair',
        'userfaultfd',
        'pagemap_scan',
        'cgroup_freezer',
      ],
    },
    {
      id: 'kexec',
      title: 'Change the kernel',
      needs: [['kexec_load', 'kexec_file_load']],
      wishes: ['kexec_load'],
    },
    {
      id: 'preserve',
      title: 'Preserve memory over kexec, in huge pages',
      needs: [['kexec_load'], ['huge_pages'], ['dev_mem', 'pmem']],
      wishes: ['dax'],
    },
    {
      id: 'preserve_region',
      title: 'Preserve memory over kexec, in a region',
      needs: [['kexec_load', 'kexec_file_load'], ['boot_region'], ['dev_mem', 'pmem']],
      wishes: [],
    },
    {
      id: 'preserve_file',
      title: 'Preserve memory in a file',
      needs: [],
      wishes: [],
    },
    {
      id: 'hibernate',
      title: 'Power off and go on',
      needs: [['kexec_load'], ['kexec_jump']],
      wishes: [],
    },
    {
      id: 'crash',
      title: 'Capture a crashed kernel',
      needs: [['kexec_load', 'kexec_file_load'], ['crashkernel']],
      wishes: ['btf', 'vmcoreinfo'],
    },
  ];

export interface Job {
  readonly id: string;
  readonly title: string;
  readonly answer: Answer['answer'];
  readonly reason: string;
}

export interface Report {
  readonly rows: readonly Row[];
  readonly jobs: readonly Job[];
  readonly groups: typeof groups;
  readonly kernel: ReturnType<typeof kernel>;
}

/**
 * Runs every probe, one after the other: a probe that fails in a way it did not expect answers "unknown".
 *
 * @throws UnsupportedError where there is nothing to ask: not Linux on x86-64
 */
export async function probeMachine(onRow: (row: Row) => void): Promise<Report> {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new UnsupportedError({
      what: 'check',
      why: `this is ${process.platform} on ${process.arch}`,
      remedy: 'run it on Linux on x86-64',
    });
  }
  const rows: Row[] = [];
  for (const { id, group, title, probe } of probes) {
    const row = { id, group, title, ...(await answerOf(probe)) };
    rows.push(row);
    onRow(row);
  }
  return { rows, jobs: judge(rows), groups, kernel: kernel() };
}

async function answerOf(probe: Probe['probe']): Promise<Answer> {
  try {
    return await probe();
  } catch (error) {
    return unknown(
      error instanceof Error ? error.message : String(error),
      'see whether a seccomp filter or a security module (SELinux, AppArmor) of this system forbids it',
    );
  }
}

/** What the rows mean for the jobs. */
export function judge(rows: readonly Pick<Row, 'id' | 'title' | 'answer'>[]): Job[] {
  const byId = new Map(rows.map((row) => [row.id, row]));
  const answerTo = (id: string) => byId.get(id)!.answer;
  const worth = { yes: 3, partly: 2, unknown: 1, no: 0 };
  return jobs.map(({ id, title, needs, wishes }) => {
    const best = needs.map((any) => any.toSorted((a, b) => worth[answerTo(b)] - worth[answerTo(a)])[0]!);
    const named = (ids: readonly string[]) => ids.map((each) => byId.get(each)!.title).join(', ');
    const lacking = best.filter((each) => answerTo(each) === 'no');
    if (lacking.length > 0) return { id, title, answer: 'no', reason: `cannot be done, because of: ${named(lacking)}` };
    const unclear = best.filter((each) => answerTo(each) === 'unknown');
    if (unclear.length > 0)
      return { id, title, answer: 'unknown', reason: `cannot be told, because of: ${named(unclear)}` };
    const weak = [
      ...best.filter((each) => answerTo(each) === 'partly'),
      ...wishes.filter((each) => answerTo(each) !== 'yes'),
    ];
    if (weak.length > 0)
      return { id, title, answer: 'partly', reason: `can be done, but less well without: ${named(weak)}` };
    return { id, title, answer: 'yes', reason: 'can be done' };
  });
}
