/** Boots the VM described in a file and ends at once, as a host agent that is killed does. */
import { readFile } from 'node:fs/promises';
import { Keeper } from '../../../packages/host-agent/src/keeper/keeper.ts';
import { qemuKit } from '../../../packages/host-agent/src/vmm/qemu/kit.ts';

const { binaries, runDir, spec } = JSON.parse(await readFile(process.argv[2]!, 'utf8'));
const kit = await qemuKit({ binaries, accelerator: 'tcg', probe: { kernel: spec.kernel } });
await kit.boot({ ...spec, keeper: await Keeper.connect(runDir) });
process.exit(0);
