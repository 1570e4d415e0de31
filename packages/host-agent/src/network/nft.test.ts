import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { before, test } from 'node:test';
import { run } from '../os/run.ts';
import { onOwnHost } from './fixture/own-host.ts';
import { applyRules, Nft } from './nft.ts';

/** Of this test's host: it has its own processes. */
function nftPids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('nft\0-i'))
    .map(Number);
}

async function elements(): Promise<string> {
  const { stdout } = await run(['nft', 'list', 'set', 'inet', 'own', 'links']);
  return /elements = \{([^}]*)\}/.exec(stdout)?.[1]?.trim() ?? '';
}

const add = (link: string) => `add element inet own links { "${link}" }`;
const drop = (link: string) => `delete element inet own links { "${link}" }`;

onOwnHost(import.meta.filename, () => {
  before(() => applyRules('table inet own { set links { type ifname; }\n}'));

  test('each call is one transaction, and says when it is done', async () => {
    await using nft = new Nft();
    await nft.apply([add('a'), add('b')]);
    assert.equal(await elements(), '"a",\n\t\t\t     "b"');
    await assert.rejects(nft.apply([add('c'), drop('missing')]), { kind: 'internal' });
    assert.ok(!(await elements()).includes('"c"'));
    await assert.rejects(nft.apply(['nonsense']), { kind: 'internal' });
    await nft.apply([drop('a'), drop('b')]);
    assert.equal(await elements(), '');
  });

  test('one that ended is replaced', async () => {
    await using nft = new Nft();
    await nft.apply([add('a')]);
    const [first] = nftPids();
    process.kill(first!, 'SIGKILL');
    await new Promise((resolve) => setTimeout(resolve, 100));
    await nft.apply([drop('a')]);
    assert.equal(await elements(), '');
    assert.notEqual(nftPids()[0], first);
    // In the middle of one, that one fails.
    process.kill(nftPids()[0]!, 'SIGSTOP');
    const cut = assert.rejects(nft.apply([add('b')]), { kind: 'internal' });
    process.kill(nftPids()[0]!, 'SIGKILL');
    await cut;
    await nft.apply([add('b'), drop('b')]);
  });

  test('it is replaced after many, and nothing of it stays', async () => {
    {
      await using nft = new Nft();
      for (let i = 0; i < 5100; i++) await nft.apply([add('a'), drop('a')]);
      assert.equal(nftPids().length, 1);
    }
    assert.deepEqual(nftPids(), []);
  });

  test('a long list is one line', async () => {
    await using nft = new Nft();
    const links = Array.from({ length: 3000 }, (_, i) => `"link${i}"`).join(', ');
    await nft.apply([`add element inet own links { ${links} }`]);
    assert.equal((await elements()).split(',').length, 3000);
  });
});
