/** Where the nodes of a graph of waits stand in a picture: in columns from left to right, so that nearly all arrows point right. */
import type { WaitEdge, WaitGraph } from './report.ts';

/** In the picture's units, which are CSS pixels. */
export const NODE = { width: 184, height: 56 } as const;
const GAP = { x: 92, y: 22 } as const;
const MARGIN = 16;
/** Below the nodes, for each arrow that leads back. */
const LANE = 26;
const SWEEPS = 4;

export interface Layout {
  readonly width: number;
  readonly height: number;
  /** Upper left corners, by id. */
  readonly at: ReadonlyMap<string, { readonly x: number; readonly y: number }>;
  /** Arrows that lead to the left, with the height at which they do so. */
  readonly back: ReadonlyMap<WaitEdge, number>;
}

export function layOut({ nodes, edges }: WaitGraph): Layout {
  const back = backEdges(nodes, edges);
  const forward = edges.filter((edge) => !back.has(edge));
  const columns = columnsOf(nodes, forward);
  for (let sweep = 0; sweep < SWEEPS; sweep++) for (const column of columns) orderColumn(column, columns, edges);
  const tallest = Math.max(1, ...columns.map(({ length }) => length));
  const rows = tallest * NODE.height + (tallest - 1) * GAP.y;
  const at = new Map<string, { x: number; y: number }>();
  columns.forEach((column, c) => {
    const height = column.length * NODE.height + (column.length - 1) * GAP.y;
    column.forEach((id, row) => {
      at.set(id, {
        x: MARGIN + c * (NODE.width + GAP.x),
        y: MARGIN + (rows - height) / 2 + row * (NODE.height + GAP.y),
      });
    });
  });
  const lanes = [...back].map((edge, i) => [edge, MARGIN + rows + (i + 1) * LANE] as const);
  return {
    width: 2 * MARGIN + columns.length * NODE.width + Math.max(0, columns.length - 1) * GAP.x,
    height: 2 * MARGIN + rows + (lanes.length > 0 ? (lanes.length + 0.5) * LANE : 0),
    at,
    back: new Map(lanes),
  };
}

/** Without these the graph has no circles: depth first, the arrows that lead to a node that the walk came through. */
function backEdges(nodes: WaitGraph['nodes'], edges: readonly WaitEdge[]): Set<WaitEdge> {
  const outgoing = Map.groupBy(edges, ({ from }) => from);
  const targets = new Set(edges.map(({ to }) => to));
  const state = new Map<string, 'open' | 'done'>();
  const back = new Set<WaitEdge>();
  // Who is waited for by nobody comes first; what is left are circles.
  const starts = nodes.toSorted((a, b) => Number(targets.has(a.id)) - Number(targets.has(b.id)));
  for (const { id } of starts) {
    if (state.has(id)) continue;
    const stack = [{ id, next: 0 }];
    state.set(id, 'open');
    while (stack.length > 0) {
      const top = stack.at(-1)!;
      const edge = outgoing.get(top.id)?.[top.next++];
      if (edge === undefined) {
        state.set(top.id, 'done');
        stack.pop();
      } else if (state.get(edge.to) === 'open') back.add(edge);
      else if (!state.has(edge.to)) {
        state.set(edge.to, 'open');
        stack.push({ id: edge.to, next: 0 });
      }
    }
  }
  return back;
}

/** Each node one column behind the last of those that lead to it. */
function columnsOf(nodes: WaitGraph['nodes'], edges: readonly WaitEdge[]): string[][] {
  const column = new Map(nodes.map(({ id }) => [id, 0]));
  for (let changed = true; changed; ) {
    changed = false;
    for (const { from, to } of edges) {
      const wanted = (column.get(from) ?? 0) + 1;
      if ((column.get(to) ?? 0) >= wanted) continue;
      column.set(to, wanted);
      changed = true;
    }
  }
  const columns: string[][] = [];
  for (const { id } of nodes) {
    const of = column.get(id)!;
    while (columns.length <= of) columns.push([]);
    columns[of]!.push(id);
  }
  return columns;
}

/** By the mean place of a node's neighbours, so that few arrows cross. */
function orderColumn(column: string[], columns: readonly string[][], edges: readonly WaitEdge[]): void {
  const place = new Map(columns.flatMap((ids) => ids.map((id, i) => [id, i - ids.length / 2] as const)));
  const mean = new Map(
    column.map((id) => {
      const near = edges.filter(({ from, to }) => from === id || to === id);
      const places = near.map(({ from, to }) => place.get(from === id ? to : from) ?? 0);
      return [id, places.length === 0 ? place.get(id)! : places.reduce((a, b) => a + b, 0) / places.length];
    }),
  );
  column.sort((a, b) => mean.get(a)! - mean.get(b)!);
}
