/** What happened: the sentence, what supports it, and where the kernel stopped. */
import { type Html, html } from './html.ts';
import type { FindingFacts, Report, VerdictFacts } from './report.ts';
import type { Section } from './section.ts';

const WEIGHTS = { cause: 'Cause', related: 'Related', note: 'Note' } as const;

export function verdictSection({ verdict }: Report): Section | undefined {
  if (verdict === undefined) return undefined;
  const { findings, fault, signature } = verdict;
  return {
    id: 'verdict',
    title: 'What happened',
    content: html`${findings.map(findingOf)}${fault === undefined ? undefined : faultOf(fault)}${signature === undefined ? undefined : signatureOf(signature)}`,
  };
}

function findingOf({ weight, text, details, evidence }: FindingFacts): Html {
  return html`<article class="finding ${weight}"><p class="weight">${WEIGHTS[weight]}</p><div><h3>${text}</h3>${details.length === 0 ? undefined : html`<ul>${details.map((each) => html`<li>${each}</li>`)}</ul>`}${evidence.length === 0 ? undefined : html`<details><summary>Evidence <span class="count">${evidence.length}</span></summary><ul class="mono evidence">${evidence.map((each) => html`<li>${each}</li>`)}</ul></details>`}</div></article>
`;
}

function faultOf({ at, instruction, entry, address, registers }: NonNullable<VerdictFacts['fault']>): Html {
  const rows: readonly (readonly [string, string | undefined])[] = [
    ['At', at],
    ['Instruction', instruction],
    ['Could not access', address],
    ['Came through', entry],
  ];
  const known = rows.filter(([, value]) => value !== undefined);
  return html`<h3>The instruction that failed</h3><dl class="facts mono">${known.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl><details><summary>Registers</summary><dl class="registers mono">${registers.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></details>`;
}

function signatureOf({ hash, parts }: NonNullable<VerdictFacts['signature']>): Html {
  return html`<p class="signature"><span class="quiet">Signature, by which the same crash is known again:</span> <span class="mono"><strong>${hash}</strong> ${parts.join(' › ')}</span></p>`;
}
