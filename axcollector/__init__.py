"""axcollector: collects API-traffic records from gateways and delivers them to object storage, losing none.

Data flows one way, through stations: door, rules, journal, buckets, store. In memory a station passes an
immutable `Batch` forward; on disk the directory that a thing lies in is its state, and a rename or an unlink is
the only transition. To know the package, read it in this order:

1. `core/errors`, `core/traces`, `core/model`: what can go wrong, and the values that everything speaks of.
2. `core/payload`, `core/records`, `core/enrichment`: from a request's body to a `Batch`; `core/tails`, `core/plain`:
   the same for nearly all bodies, in one pass.
3. `core/frames`, `core/stamps`, `core/layout`, `core/commit`: the journal's format, names on disk, who waits for which
   write.
4. `disk`, `directories`, `ownership`, `aside`, `journal`, `spool`, `courtesy`, `members`, `split_files`, `splitter`,
   `takeover`: making batches durable, and turning journals into buckets.
   `core/quarantine`, `quarantine`, `quarantine_files`: invalid records that are set aside.
5. `core/retry`, `core/schedule`, `stores/`, `backlog`, `record_counts`, `supply`, `uploader`: delivering buckets.
   `apart`, `draining`: what somebody asks for. `inventory`, `inspection`, `verification`: what lies in the stages, for
   whoever looks from outside; `stopped`, `emptying`: what is done there while no collector runs.
   `core/status`, `core/traffic`, `core/tally`, `stages`, `surveying`, `gathering`: what it says of itself.
6. `core/tables`, `core/cells`, `core/amendment`, `core/catalog`, `registry_log`, `registry`, and of `sync/` first
   `events`, `listener`, `registry_source`: where tenants and developers come from.
7. `threads`, `services`, `unwaited`, `on_stop`: what works beside the reactor; `large`, `intake`: the way in.
   `config_keys`, `config`, `destination`, `plans`, `upstream`, `ingesting`, `delivering`, `collector`: the whole, put
   together.
8. `heads`, `reception`, `conversation`, `connections`: what is asked of connections; `channel`, `twisted_channel`,
   `llhttp_parts`, `usual`, `outlet`, `usual_channel`, `llhttp_channel`, `site`: two parsers that are held to it;
   `core/authorization`, `core/rates`, `access`: what is asked of requests; `running`, `routes`, `door`, `openapi`,
   `webapi`, `admin/`, `regular`, `tls_files`, `tls`, `listening`: the doors; `core/redaction`, `bugs`: what of failures
   gets into logs.
9. `launch`, `log_json`, `log_format`, `hangup`, `log_files`, `reloading`, `notify`, `supervised`, `doors`, `assembly`,
   `tap`, `cli/`: how it is launched, what it logs, and what SIGHUP does; `core/messages`, `locks`, `worker_pipe`,
   `worker`, and of `workers/` `cores`, `places`, `feed`, `process`, `crew`: the same in several processes;
   `core/loads`, `workers/inboxes`, `handing`: which of them has a connection.
10. `core/signing`, `tokens`, `token_watch`, `signer/`, `signer_tap`: the signing service, a program of its own.
11. `core/recordtext`, `core/isolation`, `core/bounds`, `core/queues`, `complaints`, `persistent`, `buffer`: single
   records gathered into batches; `core/remote`, `fleet`, `client_requests`, `client_journals`, `client_spool`,
   `client`: sending them to collectors elsewhere.

This module imports nothing; the public names are in `axcollector.api`.
"""

__version__ = "0.1.0"
