import assert from 'node:assert/strict';
import { type Cases, fails, sh } from './stage.ts';

const AUTHOR = { authorName: 'A Tester', authorEmail: 'tester@example.com' };

export const git: Cases = {
  'git/local': async ({ folder }) => {
    const { sandbox, path } = await folder('git-local');
    const { git: repository } = sandbox;
    await repository.init(path, { initialBranch: 'main' });
    await sandbox.files.write(`${path}/README.md`, 'first\n');
    let status = await repository.status(path);
    assert.deepEqual([status.currentBranch, status.isClean, status.hasUntracked], ['main', false, true]);
    await repository.add(path);
    await repository.commit(path, 'One', AUTHOR);
    status = await repository.status(path);
    assert.equal(status.isClean, true);
    assert.equal(await sh(sandbox, `git -C ${path} log --format='%an %s'`), 'A Tester One');
    await repository.createBranch(path, 'topic');
    await sandbox.files.write(`${path}/README.md`, 'second\n');
    status = await repository.status(path);
    assert.deepEqual([status.currentBranch, status.unstagedCount], ['topic', 1]);
    await repository.restore(path, { paths: ['README.md'] });
    assert.equal(await sandbox.files.read(`${path}/README.md`), 'first\n');
    await repository.checkoutBranch(path, 'main');
    const branches = await repository.branches(path);
    assert.deepEqual([branches.currentBranch, branches.branches.toSorted()], ['main', ['main', 'topic']]);
    await repository.deleteBranch(path, 'topic');
    await repository.setConfig('user.name', 'Someone', { scope: 'local', path });
    assert.equal(await repository.getConfig('user.name', { scope: 'local', path }), 'Someone');
    await fails(repository.checkoutBranch(path, 'no-such-branch'), 'CommandExitError');
  },

  'git/remote': async ({ folder }) => {
    const { sandbox, path } = await folder('git-remote');
    const { git: repository } = sandbox;
    await repository.init(`${path}/served/app.git`, { bare: true, initialBranch: 'main' });
    const daemon = await sandbox.commands.run(
      `git daemon --reuseaddr --export-all --enable=receive-pack --base-path=${path}/served --listen=127.0.0.1 --port=9418`,
      { background: true, timeoutMs: 0 },
    );
    const url = 'git://127.0.0.1:9418/app.git';
    const retry =
      'for n in $(seq 50); do git ls-remote git://127.0.0.1:9418/app.git && break; sleep 0.2; done';
    await sandbox.commands.run(retry);
    await repository.init(`${path}/work`, { initialBranch: 'main' });
    await sandbox.files.write(`${path}/work/file`, '1\n');
    await repository.add(`${path}/work`, { all: true });
    await repository.commit(`${path}/work`, 'One', AUTHOR);
    await fails(
      repository.push(`${path}/work`),
      'GitUpstreamError',
      'InvalidArgumentError',
      'CommandExitError',
    );
    await repository.remoteAdd(`${path}/work`, 'origin', url);
    assert.equal(await repository.remoteGet(`${path}/work`, 'origin'), url);
    await repository.push(`${path}/work`, { remote: 'origin', branch: 'main', setUpstream: true });
    await repository.clone(url, { path: `${path}/clone`, branch: 'main', depth: 1 });
    assert.equal(await sandbox.files.read(`${path}/clone/file`), '1\n');
    await sandbox.files.write(`${path}/work/file`, '2\n');
    await repository.add(`${path}/work`);
    await repository.commit(`${path}/work`, 'Two', AUTHOR);
    await repository.push(`${path}/work`);
    await repository.pull(`${path}/clone`);
    assert.equal(await sandbox.files.read(`${path}/clone/file`), '2\n');
    assert.equal((await repository.status(`${path}/clone`)).behind, 0);
    await daemon.kill();
  },
};
