/** How long what took, from the first process that stood still to the last one that went on. */
import type { UpdateRecord } from './record.ts';

/** Times in ms since 1970, by the clock of the machine: over the jump they are as exact as that, a second. */
export interface Phase {
  readonly name: string;
  readonly from: number;
  readonly to: number;
  /** Of a tree, or of the machine. */
  readonly of: 'tree' | 'machine';
}

export interface Timeline {
  readonly phases: readonly Phase[];
  /** From the first tree that stood still to the last that went on, in ms; undefined before that. */
  readonly downtime?: number;
  /** What of it was neither the jump nor the next kernel's start: writing and restoring. */
  readonly ownShare?: number;
}

/** What each step of the machine is called. One that is not there is part of the one before. */
const NAMES: Readonly<Record<string, string>> = {
  memory: 'take memory',
  load: 'load the kernel',
  stop: 'stop other services',
  precopy: 'copy memory, while they run',
  freeze: 'write the rest',
  spill: 'copy to the disk',
  settle: 'settle the kernel',
  jump: 'end the trees, jump',
  back: 'go back',
  kernel: 'kernel and system start',
  restore: 'restore',
};

export function timelineOf({ steps, trees }: UpdateRecord): Timeline {
  const machine = steps.slice(0, -1).map(({ name, at }, i): Phase => {
    return { name: NAMES[name] ?? name, from: at, to: steps[i + 1]!.at, of: 'machine' };
  });
  const stood = trees.flatMap(({ name, frozen, restored }): Phase[] =>
    frozen === undefined || restored === undefined ? [] : [{ name, from: frozen, to: restored, of: 'tree' }],
  );
  const phases = [...machine, ...stood].sort((a, b) => a.from - b.from);
  const [jump, restore] = ['jump', 'restore'].map((name) => steps.findLast((step) => step.name === name)?.at);
  if (stood.length === 0 || jump === undefined || restore === undefined) return { phases };
  const from = Math.min(...stood.map((phase) => phase.from));
  const downtime = Math.max(...stood.map((phase) => phase.to)) - from;
  return { phases, downtime, ownShare: downtime - (restore - jump) };
}

const [ROW, LEFT, WIDTH] = [26, 190, 560];

/** A picture: a bar for each phase, trees below the machine. */
export function timelineSvg(record: UpdateRecord): string {
  const { phases, downtime } = timelineOf(record);
  const [start, end] = [Math.min(...phases.map(({ from }) => from)), Math.max(...phases.map(({ to }) => to))];
  const scale = WIDTH / Math.max(1, end - start);
  const rows = [...phases].sort((a, b) => a.of.localeCompare(b.of) || a.from - b.from);
  const bars = rows.map(({ name, from, to, of }, row) => {
    const [x, y, width] = [LEFT + (from - start) * scale, 34 + row * ROW, Math.max(2, (to - from) * scale)];
    const time = `${((to - from) / 1000).toFixed(2)} s`;
    // Beside the bar, on the side where there is room.
    const inside = x + width + 60 < LEFT + WIDTH + 70;
    const label = inside ? `x="${(x + width + 6).toFixed(1)}"` : `x="${(x - 6).toFixed(1)}" text-anchor="end"`;
    const color = of === 'tree' ? '#c2410c' : '#1d4ed8';
    return [
      `<text x="${LEFT - 10}" y="${y + 14}" text-anchor="end">${escaped(name)}</text>`,
      `<rect x="${x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="18" rx="2" fill="${color}"/>`,
      `<text ${label} y="${y + 14}">${time}</text>`,
    ].join('\n');
  });
  const still = downtime === undefined ? '' : `, stood still for ${(downtime / 1000).toFixed(2)} s`;
  const height = 44 + rows.length * ROW;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${LEFT + WIDTH + 70} ${height}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="10" y="20" font-weight="bold">${escaped(`${record.from} to ${record.to}${still}`)}</text>
${bars.join('\n')}
</svg>
`;
}

function escaped(text: string): string {
  return text.replace(/[<>&"]/g, (each) => `&#${each.charCodeAt(0)};`);
}
