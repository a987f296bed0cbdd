/** Values of variables. */
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import { addressOf, dumpExits, findType, hex, inputFlags, symbolText, vmcore, withKernel } from '../../kernel.ts';
import { printableLine } from '../../text.ts';

export const p = command({
  name: 'p',
  summary: 'Print a variable of the kernel',
  description: [
    'Types are known of the variables that each CPU has of its own; of others the kernel keeps none, so name it with -t, or the ' +
      'variable is printed as a number. NAME:CPU is the instance of a CPU, NAME:a those of all.',
    'With --json: [{"name", "cpu", "address", "value"}].',
  ],
  arguments: [vmcore, { name: 'NAME', summary: 'of the variable, NAME:CPU, or an address' }],
  flags: { ...inputFlags, type: { long: 'type', short: 't', value: 'TYPE', summary: 'its type, or TYPE.MEMBER' } },
  exits: dumpExits,
  examples: [
    { line: 'tideover crash p vmcore runqueues:a -t rq.nr_running', does: 'how many tasks waited for each CPU' },
  ],
  run: (io, { flags, args: [path, what] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { readValue, valueLines } = await import('../../../crash/kernel/value.ts');
      const [name = '', instance] = (what as string).split(':');
      const at = addressOf(kernel, name);
      const own = kernel.types.variable(name);
      const { btf } = kernel.types;
      const type = flags.type === undefined ? own && { ...own, btf } : findType(kernel, flags.type);
      const cpus =
        instance === 'a' || (own !== undefined && instance === undefined) ? kernel.perCpu.online : [instance];
      if (own === undefined && instance !== undefined && flags.type === undefined) {
        throw new UsageError(
          `${name} is no variable that each CPU has of its own, or its type is not known; name it with -t`,
        );
      }
      const rows = cpus.map((cpu) => {
        if (cpu !== undefined && !kernel.perCpu.online.includes(Number(cpu))) {
          throw new UsageError(`CPU ${cpu} was not online`);
        }
        const address = cpu === undefined ? at : kernel.perCpu.address(at, Number(cpu));
        const value =
          type === undefined ? hex(kernel.memory.u64(address)) : readValue(kernel.memory, type.btf, type, address);
        return { name, cpu: cpu === undefined ? null : Number(cpu), address: hex(address), value };
      });
      const symbolOf = (address: bigint) => symbolText(kernel.symbols.lookup(address));
      const lines = rows.flatMap(({ name, cpu, value }) =>
        valueLines(value, symbolOf, cpu === null ? name : `${name}:${cpu}`),
      );
      return { json: rows, text: () => lines.map(printableLine) };
    }),
});
