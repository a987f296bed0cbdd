/**
 * Where memory of trees lies that was written before them (precopy.ts), and how it goes with them.
 *
 *     before/1/NODE  <-  before/2/NODE  <-  ...  <-  NODE      the image of the tree builds on the last round
 *                                         volatile/NODE      beside it, files that no disk has (volatile.ts)
 *
 * A copy on the disk has the same form: FOLDER/NAME/before-N, and FOLDER/NAME.
 */
import { IMAGE_CONTENT, type Pkram } from '../pkram/index.ts';
import { findMemory, openMedium } from './medium.ts';

/** How many rounds were written, by the tree's node. */
export type Rounds = ReadonlyMap<string, number>;

/** The node with a round of a tree. */
export const roundNode = (node: string, round: number) => `before/${round}/${node}`;
/** The node with the files of a tree that no disk has (volatile.ts). */
export const volatileNode = (node: string) => `volatile/${node}`;
/** What it says of its content. */
export const VOLATILE_CONTENT = 'volatile';
/** What a tree has beside its own node. */
const BESIDE = /^(?:before\/\d+|volatile)\/(.*)$/s;

/** The node that the image of a tree builds on; undefined where there was no round. */
export function lastRound(rounds: Rounds, node: string): string | undefined {
  const round = rounds.get(node);
  return round === undefined ? undefined : roundNode(node, round);
}

/** Removes the nodes of trees and what they have beside them, where they are there. */
export function dropNodes(nodes: readonly string[]): void {
  const place = findMemory();
  if (place === undefined || nodes.length === 0) return;
  using pkram = openMedium(place, {});
  for (const node of nodes) removeWithRounds(pkram, node);
}

/** The node goes first: none is without what it builds on. */
export function removeWithRounds(pkram: Pkram, node: string): void {
  const names = oursIn(pkram);
  for (const name of names) if (name === node) pkram.remove(name);
  for (const name of names) if (BESIDE.exec(name)?.[1] === node) pkram.remove(name);
}

/** Removes what trees have beside them that are not there themselves. */
export function dropStrayRounds(): void {
  const place = findMemory();
  if (place === undefined) return;
  using pkram = openMedium(place, {});
  const names = oursIn(pkram);
  for (const name of names) {
    const of = BESIDE.exec(name)?.[1];
    if (of !== undefined && !names.includes(of)) pkram.remove(name);
  }
}

/** Names of nodes that are of trees: others are somebody else's, whatever they are called. */
function oursIn(pkram: Pkram): string[] {
  const isOurs = (content: string | undefined) => content === IMAGE_CONTENT || content === VOLATILE_CONTENT;
  return pkram.nodes().flatMap(({ name, content }) => (isOurs(content) ? (name ?? []) : []));
}
