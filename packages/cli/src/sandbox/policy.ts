/** The options that say when a sandbox ends, what wakes it, and what it may reach. */
import type { NetworkWishInput, OnTimeout, UpdateSandboxInput } from '@thaw/api';
import { type Command, Option } from 'commander';
import { wholeNumber } from '../context.ts';

export interface PolicyOptions {
  timeout?: number;
  onTimeout?: OnTimeout;
  autoResume?: boolean;
  internet?: boolean;
  allow?: string[];
  deny?: string[];
  dns?: string[];
}

const collect = (text: string, before: string[] = []): string[] => [...before, ...text.split(',')];

export function withPolicy(command: Command): Command {
  return command
    .option('--timeout <sec>', 'end it when it was idle for this time (300; 0: never)', wholeNumber)
    .addOption(
      new Option('--on-timeout <what>', 'what to do then (pause)').choices([
        'pause',
        'kill',
      ] satisfies OnTimeout[]),
    )
    .option('--auto-resume', 'let commands and files wake it (so it is)')
    .option('--no-auto-resume', 'let nothing but a resume wake it')
    .option('--internet', 'let it reach all that is not denied (so it is, unless something is allowed)')
    .option('--no-internet', 'let it reach nothing that is not allowed')
    .option(
      '--allow <list>',
      'IPv4 addresses, ranges and domains (*.name: all below it) it may reach; may be repeated',
      collect,
    )
    .option('--deny <ranges>', 'IPv4 addresses and ranges it may not reach; may be repeated', collect)
    .option('--dns <servers>', 'IPv4 addresses of who is asked for those domains; may be repeated', collect);
}

/** What was given; nothing of the network if none of its options was. */
export function policyOf(options: PolicyOptions): UpdateSandboxInput {
  const { timeout, onTimeout, autoResume, internet, allow, deny, dns } = options;
  const network: NetworkWishInput = {
    ...(internet !== undefined && { internet }),
    ...(allow && { allow_out: allow }),
    ...(deny && { deny_out: deny }),
    ...(dns && { dns_servers: dns }),
  };
  return {
    ...(timeout !== undefined && { timeout_sec: timeout }),
    ...(onTimeout && { on_timeout: onTimeout }),
    ...(autoResume !== undefined && { auto_resume: autoResume }),
    ...(Object.keys(network).length > 0 && { network }),
  };
}
