import { command } from '../../command.ts';
import { byteSize } from '../../progress.ts';
import { printableLine } from '../../text.ts';

export const status = command({
  name: 'status',
  group: 'The capture kernel',
  summary: 'Show whether a capture kernel is loaded, and where it saves to',
  description: ['With --json: {"armed", "reserved", "with": null or what crash arm --json says}, the second in bytes.'],
  async run() {
    const { armedWith } = await import('../../../capture/arm.ts');
    const { status: now } = await import('../../../kexec/load.ts');
    const { crashLoaded, crashSize } = now();
    const armed = armedWith();
    return {
      json: { armed: crashLoaded, reserved: crashSize, with: armed ?? null },
      text: () => [
        `${byteSize(crashSize)} are reserved for a capture kernel`,
        crashLoaded ? 'a capture kernel is loaded' : 'no capture kernel is loaded',
        ...(armed === undefined
          ? []
          : [`it is ${printableLine(armed.release)}, and saves to ${printableLine(armed.targets.join(', or to '))}`]),
      ],
    };
  },
});
