/** Drivers and settings with which a machine does not come back as it was: refused by name, before anything is touched. */
import { UnsupportedError } from '../errors.ts';
import { loadedModules } from '../sys/modules.ts';
import { readProcText } from '../sys/proc.ts';

interface Loss {
  readonly module: string;
  readonly why: string;
  readonly remedy: string;
  /** It does no harm while nobody uses it. */
  readonly whenUsed?: true;
}

const LOSSES: readonly Loss[] = [
  {
    module: 'nvidia',
    why: 'it keeps state in the card that it saves for sleep of the kernel itself only',
    remedy: 'end what uses the card, and: modprobe -r nvidia_drm nvidia_modeset nvidia_uvm nvidia; or use nouveau',
  },
  {
    module: 'vboxdrv',
    why: 'VirtualBox holds processors in a state that is not restored',
    remedy: 'save its machines, and: modprobe -r vboxnetadp vboxnetflt vboxdrv',
  },
  {
    module: 'vmmon',
    why: 'VMware holds processors in a state that is not restored',
    remedy: 'suspend its machines, and: modprobe -r vmmon',
  },
  {
    module: 'zfs',
    why: 'ZFS cannot be frozen: its threads would write to disks that sleep',
    remedy: 'export its pools, and unload it: zpool export -a && modprobe -r zfs',
  },
  {
    module: 'vfio_pci',
    why: 'a device that was given to a virtual machine loses its state when it is switched off',
    remedy: 'shut that machine down, or take the device from it',
    whenUsed: true,
  },
];

/** @throws UnsupportedError with what has to be done first */
export function requireDrivers(): void {
  const loss = knownLosses()[0];
  if (loss !== undefined) throw new UnsupportedError(loss);
}

/** What of this machine does not survive. @param loaded modules and how many use each @param commandLine the kernel's */
export function knownLosses(
  loaded = loadedModules(),
  commandLine = readProcText('/proc/cmdline'),
): { readonly what: string; readonly why: string; readonly remedy: string }[] {
  const losses = LOSSES.filter(({ module, whenUsed }) => (loaded.get(module) ?? -1) >= (whenUsed ? 1 : 0)).map(
    ({ module, why, remedy }) => ({ what: `hibernating with the module ${module}`, why, remedy }),
  );
  if (!/(?:^|\s)mem_encrypt=on/.test(commandLine)) return losses;
  const why = 'another kernel reads it only as it lies there, and the key is another one after power-off';
  return [...losses, { what: 'hibernating encrypted memory', why, remedy: 'boot without mem_encrypt=on' }];
}
