/**
 * Where memory of trees lies that was written before them (precopy.ts), and how it goes with them.
 *
 *     before/1/NODE  <-  before/2/NODE  <-  ...  <-  NODE      the image of the tree builds on the last round
 *
 * A copy on the disk has the same form: FOLDER/NAME/before-N, and FOLDER/NAME.
 */
import { IMAGE_CONTENT, type Pkram } from '../pkram/index.ts';
import { findMemory, openMedium } from './medium.ts';

/** How many rounds were written, by the tree's node. */
export type Rounds = ReadonlyMap<string, number>;

/** The node with a round of a tree. */
export const roundNode = (node: string, round: number) => `before/${round}/${node}`;
const ROUND = /^before\/\d+\/(.*)$/s;

/** The node that the image of a tree builds on; undefined where there was no round. */
export function lastRound(rounds: Rounds, node: string): string | undefined {
  const round = rounds.get(node);
  return round === undefined ? undefined : roundNode(node, round);
}

/** Removes the nodes of trees and the rounds on which they build, where they are there. */
export function dropNodes(nodes: readonly string[]): void {
  const place = findMemory();
  if (place === undefined || nodes.length === 0) return;
  using pkram = openMedium(place, {});
  for (const node of nodes) removeWithRounds(pkram, node);
}

/** The node goes first: none is without what it builds on. */
export function removeWithRounds(pkram: Pkram, node: string): void {
  const names = imagesIn(pkram);
  for (const name of names) if (name === node) pkram.remove(name);
  for (const name of names) if (ROUND.exec(name)?.[1] === node) pkram.remove(name);
}

/** Removes rounds of trees that are not there themselves. */
export function dropStrayRounds(): void {
  const place = findMemory();
  if (place === undefined) return;
  using pkram = openMedium(place, {});
  const names = imagesIn(pkram);
  for (const name of names) {
    const of = ROUND.exec(name)?.[1];
    if (of !== undefined && !names.includes(of)) pkram.remove(name);
  }
}

/** Names of nodes with images: others are somebody else's, whatever they are called. */
function imagesIn(pkram: Pkram): string[] {
  return pkram.nodes().flatMap(({ name, content }) => (content === IMAGE_CONTENT ? (name ?? []) : []));
}
