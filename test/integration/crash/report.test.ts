/** The report's page in a real browser: it loads nothing, runs nothing but its own script, and can be used by keyboard alone. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { reportPage } from '../../../src/crash/report/page.ts';
import { type Page, withPage } from '../../browser.ts';
import { sampleReport } from '../../unit/crash/report.ts';

const size = { width: 1280, height: 900 };

test('the page of a crash, in a browser', { timeout: 300_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-report-'));
  try {
    const path = join(folder, 'report.html');
    writeFileSync(path, await reportPage(sampleReport(), 'tideover 0.0.0'), { mode: 0o600 });
    await withPage(`file://${path}`, size, async (page) => {
      await searchesTheLog(page);
      await searchesTasks(page);
      await isReached(page);
      await isPrinted(page);
      await isShown(page);
      const asked = page.events.filter(({ method }) => method === 'Network.requestWillBeSent');
      assert.deepEqual(
        asked.map(({ params }) => (params.request as { url: string }).url),
        [`file://${path}`],
      );
      const said = page.events.filter(({ method }) =>
        /^Log\.|^Runtime\.(exceptionThrown|consoleAPICalled)/.test(method),
      );
      assert.deepEqual(said, []);
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** Types into a field, and waits for as many as are to be found; what was found before is another number. */
async function search(page: Page, field: string, text: string, found: string): Promise<void> {
  const count = `document.getElementById('${field}-count')`;
  assert.notEqual(await page.evaluate(`${count}.value`), found);
  await page.evaluate(`{const f = document.getElementById('${field}-search'); f.focus(); f.select();}`);
  await page.type(text);
  await page.evaluate(
    `new Promise((done) => { const look = () => ${count}.value === '${found}' ? done() : setTimeout(look, 10); look(); })`,
  );
}

async function searchesTheLog(page: Page): Promise<void> {
  await search(page, 'log', 'NULL pointer', '1 of 1501 lines');
  const shown = `[...document.querySelectorAll('.l')].filter((line) => line.checkVisibility()).map((line) => line.querySelector('.m').innerHTML)`;
  assert.deepEqual(await page.evaluate(shown), [
    'BUG: kernel <mark>NULL pointer</mark> dereference, address: 0000000000000008',
  ]);
  // What is searched for, and what it finds, stays text.
  await search(page, 'log', '<script>alert', '2 of 1501 lines');
  assert.equal(await page.evaluate(`document.querySelectorAll('mark').length`), 2);
  await search(page, 'log', 'no such line', '0 of 1501 lines');
  await page.evaluate(
    `{const s = document.getElementById('log-search'); s.value = ''; const l = document.getElementById('log-level'); l.value = '3'; l.dispatchEvent(new Event('change'));}`,
  );
  assert.equal(await page.evaluate(`document.getElementById('log-count').value`), '17 of 1501 lines');
}

async function searchesTasks(page: Page): Promise<void> {
  await search(page, 'task', 'nanosleep', '1 of 4 stacks');
  const shown = `[...document.querySelectorAll('details.stack')].filter((group) => group.checkVisibility()).map((group) => group.querySelector('.where').textContent)`;
  assert.deepEqual(await page.evaluate(shown), ['do_nanosleep']);
  await search(page, 'task', '4712', '3 of 4 stacks');
}

/** By Tab alone all controls are reached, each with a name; what is a picture has a text. */
async function isReached(page: Page): Promise<void> {
  await page.evaluate(`document.activeElement.blur()`);
  await page.evaluate(
    `getSelection().removeAllRanges(); document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')`,
  );
  const reached: string[] = [];
  for (let i = 0; i < 60; i++) {
    await page.press('Tab');
    const at = await page.evaluate<string>(
      `(() => { const a = document.activeElement; return a.id || a.getAttribute('aria-label') || a.textContent.trim().slice(0, 20); })()`,
    );
    if (reached.includes(at) && at === reached[0]) break;
    reached.push(at);
  }
  assert.equal(reached[0], 'Skip to the content');
  for (const each of ['log-search', 'log-level', 'log-lines', 'task-search', 'task-state']) {
    assert.ok(reached.includes(each), `${each} is not among ${reached.join(', ')}`);
  }
  const { nodes } = (await page.call('Accessibility.getFullAXTree')) as unknown as { nodes: AxNode[] };
  const seen = nodes.filter(({ ignored }) => !ignored);
  for (const { role, name } of seen) {
    const wanted = ['searchbox', 'combobox', 'link', 'button', 'image', 'region', 'DisclosureTriangle'];
    if (wanted.includes(role.value)) assert.notEqual(name?.value ?? '', '', `a ${role.value} without a name`);
  }
  const headings = seen.filter(({ role }) => role.value === 'heading').map(({ name }) => name?.value);
  assert.ok(headings.includes('What happened') && headings.some((text) => text?.startsWith('Log')), `${headings}`);
}

interface AxNode {
  readonly ignored: boolean;
  readonly role: { readonly value: string };
  readonly name?: { readonly value: string };
}

/** On paper nothing is closed, and nothing scrolls. */
async function isPrinted(page: Page): Promise<void> {
  const { data } = await page.call('Page.printToPDF', { printBackground: false });
  const pdf = Buffer.from(data as string, 'base64').toString('latin1');
  assert.ok(pdf.startsWith('%PDF-') && (pdf.match(/\/Type \/Page\b/g)?.length ?? 0) > 3);
  assert.ok((await page.evaluate<number>(`document.querySelectorAll('details:not([open])').length`)) > 0);
}

/** By day, by night, and on a narrow screen: a picture with something in it, and nothing wider than the screen. */
async function isShown(page: Page): Promise<void> {
  const folder = process.env.TIDEOVER_SCREENSHOTS;
  for (const scheme of ['light', 'dark']) {
    await page.call('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
    const png = await page.screenshot(true);
    if (folder !== undefined) writeFileSync(join(folder, `report-${scheme}.png`), png);
    assert.equal(png.readUInt32BE(16), size.width);
    assert.ok(png.readUInt32BE(20) > 2 * size.height && png.length > 50_000, `${png.length} bytes`);
    const brightness = `getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => a + Number(b), 0)`;
    assert.equal((await page.evaluate<number>(brightness)) < 384, scheme === 'dark');
  }
  const metrics = { width: 390, height: 844, deviceScaleFactor: 1, mobile: false };
  await page.call('Emulation.setDeviceMetricsOverride', metrics);
  assert.ok((await page.evaluate<number>(`document.documentElement.scrollWidth`)) <= 390);
}
