import type { TemplateInfo } from '@thaw/api';
import { toBuild } from '../sandbox/sandbox.ts';
import type { TemplateRow } from './table.ts';

export function toTemplate(row: TemplateRow, timings?: Record<string, number>): TemplateInfo {
  return {
    id: row.id,
    name: row.name,
    type: row.type,
    ...(row.vcpus !== null && { vcpus: row.vcpus }),
    ...(row.memory_mb !== null && { memory_mb: row.memory_mb }),
    disk_mb: row.disk_mb,
    size_bytes: Number(row.build_stored_bytes ?? 0),
    ...(row.build_id && { build: toBuild(row.build_id, row) }),
    ...(row.error_reason !== null && { error_reason: row.error_reason }),
    created_at: row.created_at.toISOString(),
    ...(timings && Object.keys(timings).length > 0 && { timings_ms: timings }),
  };
}
