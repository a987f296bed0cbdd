/** Pictures as SVG. They take their colours from the page's style, so that they fit light and dark; what they show stands beside them as text. */
import { type Html, html } from './html.ts';
import { layOut, NODE } from './layout.ts';
import { type MemoryPicture, memoryKinds, type WaitEdge, type WaitGraph } from './report.ts';

/** Characters that fit in a node of the graph, in its two lines. */
const TITLE_LENGTH = 20;
const DETAIL_LENGTH = 25;
/** CSS pixels: what fits in the page, and how small a wider picture may become before it is scrolled. */
const FITS = 1080;
const SMALLEST = 0.78;
const BAR = { width: 1000, height: 40 } as const;

/** Who waits for what. Tasks are rounded, locks are not; what is red is a deadlock. */
export function waitPicture(graph: WaitGraph): Html {
  const { width, height, at, back } = layOut(graph);
  const shown = width <= FITS ? width : Math.max(FITS, width * SMALLEST);
  const inDeadlock = new Set(graph.edges.filter(({ deadlock }) => deadlock).flatMap(({ from, to }) => [from, to]));
  const arrows = graph.edges.map((edge) => {
    const path = pathOf(at.get(edge.from)!, at.get(edge.to)!, back.get(edge));
    const kind = edge.deadlock ? 'deadlock' : 'normal';
    return html`<path class="edge ${kind}" d="${path.d}" marker-end="url(#arrow-${kind})"/><text class="edge-label" x="${path.x}" y="${path.y}" text-anchor="middle">${edge.label}</text>`;
  });
  const nodes = graph.nodes.map(({ id, kind, title, detail }) => {
    const { x, y } = at.get(id)!;
    return html`<g class="node ${kind}${inDeadlock.has(id) ? ' deadlock' : ''}"><title>${title} ${detail}</title><rect x="${x}" y="${y}" width="${NODE.width}" height="${NODE.height}" rx="${kind === 'task' ? 14 : 3}"/><text class="node-title" x="${x + NODE.width / 2}" y="${y + 24}" text-anchor="middle">${shortened(title, TITLE_LENGTH)}</text><text class="node-detail" x="${x + NODE.width / 2}" y="${y + 42}" text-anchor="middle">${shortened(detail, DETAIL_LENGTH)}</text></g>`;
  });
  return html`<svg class="waits" role="img" aria-labelledby="waits-title" viewBox="0 0 ${width} ${height}" width="${shown}" height="${(height * shown) / width}" xmlns="http://www.w3.org/2000/svg"><title id="waits-title">Who waits for what: ${graph.nodes.length} tasks and locks. The same is listed below as text.</title><defs>${['normal', 'deadlock'].map((kind) => html`<marker id="arrow-${kind}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto"><path class="arrow ${kind}" d="M0 0 10 5 0 10Z"/></marker>`)}</defs>${arrows}${nodes}</svg>`;
}

/** A curve from the right side of a node to the left side of another; or below all of them back. And where its label stands. */
function pathOf(
  from: { x: number; y: number },
  to: { x: number; y: number },
  lane: number | undefined,
): { d: string; x: number; y: number } {
  const [x1, y1] = [from.x + NODE.width, from.y + NODE.height / 2];
  const [x2, y2] = [to.x, to.y + NODE.height / 2];
  if (lane === undefined) {
    const bend = Math.max(30, (x2 - x1) / 2);
    return {
      d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`,
      x: (x1 + x2) / 2,
      y: (y1 + y2) / 2 - 7,
    };
  }
  const [down, up] = [from.x + NODE.width / 2, to.x + NODE.width / 2];
  const [bottom, top] = [from.y + NODE.height, to.y + NODE.height];
  const d = `M${down} ${bottom}C${down} ${lane} ${down} ${lane} ${down - 30} ${lane}L${up + 30} ${lane}C${up} ${lane} ${up} ${lane} ${up} ${top}`;
  return { d, x: (down + up) / 2, y: lane - 6 };
}

function shortened(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}

/** Memory as a bar, cut by what it was used for. */
export function memoryBar({ kinds, total }: MemoryPicture): Html {
  let x = 0;
  const parts = kinds.map(({ kind, pages }) => {
    const width = (pages / total) * BAR.width;
    const part = html`<rect class="${kindClass(kind)}" x="${x.toFixed(2)}" y="0" width="${width.toFixed(2)}" height="${BAR.height}"><title>${kind}: ${percent(pages, total)}</title></rect>`;
    x += width;
    return part;
  });
  const text = kinds.map(({ kind, pages }) => `${kind} ${percent(pages, total)}`).join(', ');
  return html`<svg class="bar" role="img" aria-label="What memory was used for: ${text}" viewBox="0 0 ${BAR.width} ${BAR.height}" preserveAspectRatio="none" xmlns="http://www.w3.org/2000/svg">${parts}</svg>`;
}

/** A line as long as a part of a whole. */
export function smallBar(part: number, whole: number, kind: string): Html {
  const width = whole <= 0 ? 0 : Math.min(100, (part / whole) * 100);
  return html`<svg class="small-bar" aria-hidden="true" viewBox="0 0 100 8" preserveAspectRatio="none" xmlns="http://www.w3.org/2000/svg"><rect class="rest" width="100" height="8"/><rect class="${kind}" width="${width.toFixed(2)}" height="8"/></svg>`;
}

/** Class of a kind of memory, which the style gives its colour. */
export function kindClass(kind: MemoryPicture['kinds'][number]['kind']): string {
  return `kind-${memoryKinds.indexOf(kind)}`;
}

export function percent(part: number, whole: number): string {
  const value = (part / whole) * 100;
  return `${value >= 10 || value === 0 ? value.toFixed(0) : value.toFixed(1)} %`;
}

/** The same as the picture, in sentences. */
export function waitSentences({ nodes, edges }: WaitGraph): { text: string; deadlock: boolean }[] {
  const titles = new Map(nodes.map(({ id, title, detail }) => [id, `${title} (${detail})`]));
  const sentence = ({ from, to, label, deadlock }: WaitEdge) => {
    return { text: `${titles.get(from)} ${label} ${titles.get(to)}`, deadlock };
  };
  return edges.map(sentence);
}
