/** The sections of the page that are a picture or a table. */
import { type Html, html } from './html.ts';
import { kindClass, memoryBar, percent, smallBar, waitPicture, waitSentences } from './pictures.ts';
import type { ModuleRow, Report } from './report.ts';
import { byteText, type Section } from './section.ts';

const PAGE = 4096;

export function waitSection({ waits }: Report): Section | undefined {
  if (waits.nodes.length === 0) return undefined;
  const sentences = waitSentences(waits);
  const deadlock = waits.edges.some((edge) => edge.deadlock);
  return {
    id: 'waits',
    title: 'Who waits for what',
    content: html`${deadlock ? html`<p class="alarm">There is a deadlock: what is drawn in red waits in a circle, and can never go on.</p>` : undefined}<div class="scroll picture" tabindex="0" role="region" aria-label="Picture of who waits for what">${waitPicture(waits)}</div>
<details><summary>As text</summary><ul>${sentences.map(({ text, deadlock }) => html`<li>${text}${deadlock ? html` <strong>(deadlock)</strong>` : undefined}</li>`)}</ul></details>${waits.left > 0 ? html`<p class="quiet">${waits.left} more arrows are left out: there is no room for them.</p>` : undefined}`,
  };
}

export function memorySection({ memory }: Report): Section | undefined {
  if (memory === undefined) return undefined;
  const { kinds, total, slabs } = memory;
  const largest = slabs[0]?.bytes ?? 0;
  const row = ({ kind, pages }: (typeof kinds)[number]) => {
    return html`<tr><td><svg class="key" aria-hidden="true" viewBox="0 0 10 10"><rect class="${kindClass(kind)}" width="10" height="10" rx="2"/></svg>${kind}</td><td class="n">${byteText(pages * PAGE)}</td><td class="n">${percent(pages, total)}</td></tr>`;
  };
  const slab = ({ name, bytes, objects }: (typeof slabs)[number]) => {
    return html`<tr><td class="mono">${name}</td><td>${smallBar(bytes, largest, 'kind-4')}</td><td class="n">${byteText(bytes)}</td><td class="n">${objects}</td></tr>`;
  };
  return {
    id: 'memory',
    title: 'Memory',
    content: html`<p>${byteText(total * PAGE)} of memory, by what it was used for, by the kernel's own counters.</p>${memoryBar(memory)}
<div class="columns"><table><caption>Use of memory</caption><thead><tr><th scope="col">Kind</th><th scope="col" class="n">Size</th><th scope="col" class="n">Part</th></tr></thead><tbody>${kinds.map(row)}</tbody></table>
${slabs.length === 0 ? undefined : html`<table><caption>Largest slab caches</caption><thead><tr><th scope="col">Cache</th><th scope="col"><span class="hidden">Beside the largest</span></th><th scope="col" class="n">Size</th><th scope="col" class="n">Objects in use</th></tr></thead><tbody>${slabs.map(slab)}</tbody></table>`}</div>`,
  };
}

export function moduleSection({ modules }: Report): Section | undefined {
  if (modules.length === 0) return undefined;
  const notable = ({ crashed, taints }: ModuleRow) => Number(crashed) * 2 + Number(taints !== '');
  const sorted = modules.toSorted((a, b) => notable(b) - notable(a));
  return {
    id: 'modules',
    title: 'Modules',
    count: modules.length,
    content: html`<div class="scroll" tabindex="0" role="region" aria-label="Table of modules"><table><thead><tr><th scope="col">Name</th><th scope="col" class="n">Size</th><th scope="col">Taint</th><th scope="col">Used by</th><th scope="col">Base</th></tr></thead><tbody>${sorted.map(moduleRow)}</tbody></table></div>`,
  };
}

function moduleRow({ name, size, taints, state, usedBy, base, crashed }: ModuleRow): Html {
  const notes = [crashed ? 'in the stack that crashed' : '', state === 'live' ? '' : state].filter(Boolean).join(', ');
  return html`<tr${crashed ? html` class="marked"` : undefined}><td><strong class="mono">${name}</strong>${notes === '' ? undefined : html` <span class="alarm">${notes}</span>`}</td><td class="n">${byteText(size)}</td><td>${taints}</td><td>${usedBy.join(', ')}</td><td class="mono quiet">${base}</td></tr>`;
}

export function missingSection({ missing }: Report): Section | undefined {
  if (missing.length === 0) return undefined;
  return {
    id: 'missing',
    title: 'What could not be read',
    count: missing.length,
    content: html`<p>The dump does not hold all of this. What is said elsewhere on this page is said without it.</p><ul class="mono">${missing.map((each) => html`<li>${each}</li>`)}</ul>`,
  };
}

export function sourceSection({ sources }: Report): Section {
  return {
    id: 'sources',
    title: 'Where this is known from',
    content: html`<dl class="sources">${sources.map(({ what, from }) => html`<div><dt>${what}</dt><dd>${from}</dd></div>`)}</dl>`,
  };
}
