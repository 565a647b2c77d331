// Before a run: what an earlier one left in artifacts/ must not be taken for this one's.
import { rmSync } from 'node:fs';
import { ARTIFACTS } from './cluster.mjs';

rmSync(ARTIFACTS, { recursive: true, force: true });
