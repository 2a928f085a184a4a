"""Series on VictoriaMetrics, a single node or a cluster: MetricsQL and the export API."""
