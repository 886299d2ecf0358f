-- For wrk: POST requests, and a summary that a program can read. Nothing is done for each response.
wrk.method = "POST"

function done(summary, latency, _)
    local errors = summary.errors
    io.write(string.format(
        '\n{"answered": %d, "seconds": %f, "refused": %d, "broken": %d, "p50": %f, "p99": %f}\n',
        summary.requests, summary.duration / 1e6, errors.status,
        errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
