/**
 * The official E2B SDKs, unmodified, against an installed Thaw with real VMs. `make test` takes the core with the newest
 * SDKs, `make conformance` everything: `THAW_CONFORMANCE=full`. `THAW_CONFORMANCE_SDK`, `_MODE` and `_CASE` (regular
 * expressions) choose a part of that.
 */
import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { after, before, describe, it } from 'node:test';
import { ownHost } from '../e2e/own-host.ts';
import { type Case, casesOf } from './cases.ts';
import { Deployment } from './deployment.ts';
import { installPython } from './python.ts';
import { Report } from './report.ts';
import { type Outcome, runCases } from './run.ts';
import { type Mode, nameOf, SDKS, type Sdk } from './sdks.ts';
import { Trouble } from './trouble.ts';

const CLIENTS = 8;
const FULL = process.env.THAW_CONFORMANCE === 'full';
const matches = (what: string, value: string) =>
  new RegExp(process.env[`THAW_CONFORMANCE_${what}`] ?? '').test(value);

/** Of the newest SDKs the plain mode, and of Python the sync flavour, unless everything is asked for. */
const sampled = ({ extent, flavour }: Sdk, mode: Mode) =>
  FULL || (extent === 'full' && flavour !== 'async' && mode === 'plain');
const sdks = SDKS.filter(
  (sdk) => matches('SDK', nameOf(sdk)) && sdk.modes.some((mode) => sampled(sdk, mode)),
);
const modesOf = (sdk: Sdk) => sdk.modes.filter((mode) => matches('MODE', mode) && sampled(sdk, mode));
const chosen = (sdk: Sdk, trouble = false): Case[] =>
  casesOf(sdk).filter(
    (one) => one.trouble === trouble && (FULL || trouble || one.core) && matches('CASE', one.name),
  );

// Where the packages come from cannot be reached from inside.
await installPython(sdks.filter(({ language }) => language === 'Python').map(({ version }) => version));
await ownHost(import.meta.filename);

/** Each case becomes a test of its own as the program tells of it. */
type Told = (outcome: Outcome) => void;

async function play(run: Parameters<typeof runCases>[0], told: Told): Promise<void> {
  for await (const outcome of runCases(run)) told(outcome);
}

// A sample's two SDKs have their sandboxes side by side.
describe('the E2B SDKs', { concurrency: !FULL }, () => {
  const report = new Report();
  let thaw: Deployment;
  before(async () => {
    thaw = await Deployment.start();
  });
  after(async () => {
    if (thaw !== undefined && report.isKept) {
      const { isolation } = await thaw.thaw.sdk.sandboxes.create();
      await report.save({ host: `${availableParallelism()} CPUs, ${isolation}` });
    }
    await thaw?.stop();
  });

  /** Tests of these cases, told by one process that begins in front of them. */
  const tests = (sdk: Sdk, mode: Mode, cases: Case[], env: () => Record<string, string>) => {
    const outcomes = new Map<string, PromiseWithResolvers<Outcome>>();
    for (const { name } of cases) outcomes.set(name, Promise.withResolvers());
    before(() => {
      const run = { sdk, mode, cases: [...outcomes.keys()], env: env() };
      void play(run, (outcome) => outcomes.get(outcome.case)?.resolve(outcome));
    });
    for (const { name, title } of cases) {
      it(`${title} (${name})`, async () => {
        const outcome = await outcomes.get(name)!.promise;
        report.add(sdk, mode, outcome);
        assert.equal(outcome.outcome, 'passed', outcome.error);
      });
    }
  };

  for (const sdk of sdks) {
    for (const mode of modesOf(sdk)) {
      const cases = chosen(sdk);
      if (cases.length > 0)
        describe(`${nameOf(sdk)}, ${mode}`, () => tests(sdk, mode, cases, () => thaw.env(mode)));
      const troubled = mode === 'plain' ? chosen(sdk, true) : [];
      if (troubled.length === 0) continue;
      describe(`${nameOf(sdk)}, ${mode}, with a host in trouble`, () => {
        let trouble: Trouble;
        before(async () => {
          trouble = await Trouble.start();
        });
        after(() => trouble?.[Symbol.asyncDispose]());
        tests(sdk, mode, troubled, () => trouble.env);
      });
    }
  }

  const atOnce = async () => {
    const newest = SDKS.filter(({ extent }) => extent === 'full');
    const clients = Array.from({ length: CLIENTS }, (_, at) => ({
      sdk: newest[at % newest.length]!,
      mode: (['plain', 'tls'] as const)[at % 2]!,
    }));
    const failed: string[] = [];
    let passed = 0;
    const one = ({ sdk, mode }: (typeof clients)[number]) => {
      const core = casesOf(sdk).filter((each) => each.core);
      return play({ sdk, mode, cases: core.map(({ name }) => name), env: thaw.env(mode) }, (outcome) => {
        if (outcome.outcome === 'passed') passed += 1;
        else failed.push(`${nameOf(sdk)}, ${mode}: ${outcome.case}: ${outcome.error}`);
      });
    };
    await Promise.all(clients.map(one));
    report.addAtOnce(CLIENTS, passed, failed.length);
    assert.deepEqual(failed, []);
  };
  if (FULL && matches('CASE', 'at-once'))
    it(`are served the same when ${CLIENTS} of them come at once`, atOnce);
});
