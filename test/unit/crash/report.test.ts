import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { html } from '../../../src/crash/report/html.ts';
import { layOut, NODE } from '../../../src/crash/report/layout.ts';
import { reportPage } from '../../../src/crash/report/page.ts';
import { byteText } from '../../../src/crash/report/section.ts';
import { waitPictureOf } from '../../../src/crash/report/waitpicture.ts';
import { waitGraph } from '../../../src/crash/why/waits.ts';
import { hostile, sampleReport } from './report.ts';

test('what stands in a template is text, whatever it is', () => {
  assert.equal(
    html`<p title="${`"'<&`}">${[1, html`<b>x</b>`, undefined, 'y<']}</p>`.text,
    '<p title="&quot;&#39;&lt;&amp;">1<b>x</b>y&lt;</p>',
  );
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const { text: made } = html`<${text}>`;
      assert.doesNotMatch(made.slice(1, -1), /[<>"'\x00-\x08\x1b\x7f-\x9f\u202a-\u202e]/);
    }),
  );
});

test('nothing of the dump becomes markup, and the page names what may run', async () => {
  const page = await reportPage(sampleReport(), 'tideover 0.0.0');
  assert.equal(page.match(/<script/g)?.length, 1);
  assert.doesNotMatch(page, /<img|\u202e|\x1b/);
  assert.ok(page.includes('&lt;script&gt;alert(1)'));
  // Neither an address that is loaded, nor a style or a handler in an attribute.
  assert.doesNotMatch(page.replaceAll('http://www.w3.org/2000/svg', ''), /https?:|<[^>]* (?:style|on\w+|src)=/);
  const policy = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(page)![1]!;
  assert.ok(policy.startsWith('default-src &#39;none&#39;; '), policy);
  for (const element of ['style', 'script']) {
    const [, text] = new RegExp(`<${element}>([\\s\\S]*?)</${element}>`).exec(page)!;
    const hash = createHash('sha256').update(text!).digest('base64');
    assert.ok(policy.includes(`${element}-src &#39;sha256-${hash}&#39;`), policy);
  }
});

test('what is not known is left out', async () => {
  const { system, ...report } = sampleReport();
  const unknown = { nodename: undefined, release: undefined, version: undefined, time: undefined, uptime: undefined };
  const page = await reportPage(
    {
      ...report,
      system: { ...system, ...unknown, cpus: undefined, load: undefined, tasks: undefined, taints: undefined },
      panic: undefined,
      verdict: undefined,
      waits: { nodes: [], edges: [], left: 0 },
      log: [],
      stacks: [],
      memory: undefined,
      modules: [],
      missing: [],
    },
    'tideover 0.0.0',
  );
  const body = page.slice(page.indexOf('<body>'));
  assert.match(body, /No panic/);
  assert.doesNotMatch(body, /undefined|NaN|<section id="(?!sources)/);
});

test('nodes of a picture stand apart, whatever waits for whatever', () => {
  const graphs = fc.integer({ min: 1, max: 12 }).chain((count) =>
    fc.array(fc.tuple(fc.nat(count - 1), fc.nat(count - 1)), { maxLength: 24 }).map((pairs) => ({
      nodes: Array.from({ length: count }, (_, i) => ({ id: `${i}`, kind: 'task' as const, title: '', detail: '' })),
      edges: pairs.map(([from, to]) => ({ from: `${from}`, to: `${to}`, label: '', deadlock: false })),
      left: 0,
    })),
  );
  fc.assert(
    fc.property(graphs, (graph) => {
      const { at, width, height, back } = layOut(graph);
      const places = graph.nodes.map(({ id }) => at.get(id)!);
      for (const [i, a] of places.entries()) {
        assert.ok(a.x >= 0 && a.y >= 0 && a.x + NODE.width <= width && a.y + NODE.height <= height);
        for (const b of places.slice(i + 1)) {
          assert.ok(Math.abs(a.x - b.x) >= NODE.width || Math.abs(a.y - b.y) >= NODE.height, 'two nodes overlap');
        }
      }
      for (const edge of graph.edges) {
        if (!back.has(edge)) assert.ok(at.get(edge.from)!.x < at.get(edge.to)!.x, 'an arrow leads right');
        else assert.ok(back.get(edge)! < height);
      }
    }),
  );
});

test('a deadlock, and many that wait behind it', () => {
  const task = (pid: number) => ({
    address: BigInt(pid),
    pid,
    tgid: pid,
    ppid: 1,
    comm: `t${pid}`,
    state: 'D',
    cpu: 0,
    running: false,
    mm: 0n,
  });
  const lock = (address: bigint, owner: number) => ({
    address,
    kind: 'mutex' as const,
    symbol: undefined,
    state: 'held',
    holders: [{ task: task(owner), proof: 'owner' as const }],
  });
  const wait = (pid: number, lock: bigint) => {
    const common = { wanted: 'lock', waiter: 0n, taker: 'mutex_lock', caller: undefined, seconds: 3 } as const;
    return { task: task(pid), lock, ...common };
  };
  const others = [11, 12, 13, 14, 15].map((pid) => wait(pid, 0x100n));
  const graph = waitPictureOf(
    waitGraph([lock(0x100n, 2), lock(0x200n, 1)], [wait(1, 0x100n), wait(2, 0x200n), ...others]),
  );
  assert.deepEqual(graph.nodes.map(({ title }) => title).sort(), ['5 tasks', 'mutex', 'mutex', 't1 1', 't2 2']);
  assert.equal(graph.edges.filter(({ deadlock }) => deadlock).length, 4);
  assert.deepEqual(
    graph.edges.find(({ from }) => from.startsWith('w')),
    { from: 'w256', to: 'l256', label: 'wait for', deadlock: false },
  );
});

test('sizes', () => {
  assert.deepEqual([0, 999, 1000, 4096, 123_456_789, 2 ** 60].map(byteText), [
    '0 B',
    '999 B',
    '0.977 KB',
    '4.00 KB',
    '118 MB',
    '1024 PB',
  ]);
  assert.ok(hostile.includes('\x1b'));
});
