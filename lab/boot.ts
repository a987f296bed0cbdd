/** Boots the lab's guest root on a kernel. */
import { type Kernel, type KernelName, kernel as kernelNamed } from './kernels.ts';
import type { Machine } from './qemu.ts';
import { guestRoot, type RootOptions } from './root.ts';
import { Vm } from './vm.ts';

export interface BootOptions extends Machine, RootOptions {
  /** A kernel's name in the lab, or the kernel. */
  readonly kernel: KernelName | Kernel;
  /** Added to the kernel's command line. */
  readonly append?: string;
  /** Milliseconds for the guest to be ready. 0 to return when QEMU runs. */
  readonly timeout?: number;
}

const BOOT_TIMEOUT_MS = 300_000;

/**
 * The command line of every guest. Without mitigations software emulation is quicker, and the guest runs no code that they
 * would guard it from. An emulated timer is late where the machine is busy, and a kernel that checks whether it ticks panics then
 * (check_timer() of arch/x86/kernel/apic/io_apic.c). Kexec handover takes half of a small guest's memory at boot; a scenario that wants it appends
 * kho=on.
 */
export const commandLine = 'console=ttyS0 panic=-1 mitigations=off random.trust_cpu=on no_timer_check kho=off';

/**
 * Starts a guest with the lab's root and returns when it is ready for commands. End it with close().
 *
 *     const vm = await boot({ kernel: '6.12', memory: 512 });
 *     const { stdout } = await vm.run('uname -r');
 */
export async function boot(options: BootOptions): Promise<Vm> {
  const kernel = typeof options.kernel === 'string' ? await kernelNamed(options.kernel) : options.kernel;
  const initrd = await guestRoot(kernel, options);
  const append = [commandLine, options.append ?? ''].join(' ').trim();
  return started(await Vm.start(options, { kernel: kernel.vmlinuz, initrd, append }), options.timeout);
}

/** Waits for a guest's agent, and ends the guest where it does not come. */
export async function started(vm: Vm, timeout = BOOT_TIMEOUT_MS): Promise<Vm> {
  if (timeout === 0) return vm;
  try {
    await vm.agent.ready(timeout);
    return vm;
  } catch (error) {
    await vm.close();
    throw error;
  }
}
