"""Each mutation of Dagster's GraphQL as somebody would send it, about the code location of `world.py`."""

_REPOSITORY = 'repositoryLocationName: "world.py", repositoryName: "__repository__"'
_JOB = f'selector: {{ {_REPOSITORY}, jobName: "nightly" }}'
_PARAMS = f"executionParams: {{ {_JOB}, runConfigData: {{}} }}"
_AGAIN = f'executionParams: {{ {_JOB}, executionMetadata: {{ rootRunId: "RUN", parentRunId: "RUN" }} }}'
_SENSOR = f'sensorSelector: {{ {_REPOSITORY}, sensorName: "doorbell" }}'
_SCHEDULE = f'scheduleSelector: {{ {_REPOSITORY}, scheduleName: "at_three" }}'
_CLIENTS = f'repositorySelector: {{ {_REPOSITORY} }}, partitionsDefName: "clients"'
_ASSET = 'assetKey: { path: ["tide"] }'
_COMPONENT = 'locationName: "world.py", componentId: "c"'

# What follows the name. RUN is the id of a run, BACKFILL that of a backfill.
ARGUMENTS = {
    "launchRun": f"({_PARAMS})",
    "launchPipelineExecution": f"({_PARAMS})",
    "launchMultipleRuns": f"(executionParamsList: [{{ {_JOB}, runConfigData: {{}} }}])",
    "launchRunReexecution": '(reexecutionParams: { parentRunId: "RUN", strategy: ALL_STEPS })',
    "launchPipelineReexecution": f"({_AGAIN})",
    "startSchedule": f"({_SCHEDULE})",
    "stopRunningSchedule": '(scheduleOriginId: "a", scheduleSelectorId: "b")',
    "resetSchedule": f"({_SCHEDULE})",
    "startSensor": f"({_SENSOR})",
    "setSensorCursor": f'({_SENSOR}, cursor: "7")',
    "stopSensor": '(jobOriginId: "a", jobSelectorId: "b")',
    "resetSensor": f"({_SENSOR})",
    "sensorDryRun": f'(selectorData: {{ {_REPOSITORY}, sensorName: "doorbell" }}, cursor: "")',
    "scheduleDryRun": f'(selectorData: {{ {_REPOSITORY}, scheduleName: "at_three" }}, timestamp: 1700000000)',
    "terminatePipelineExecution": '(runId: "RUN")',
    "terminateRun": '(runId: "RUN")',
    "terminateRuns": '(runIds: ["RUN"])',
    "deletePipelineRun": '(runId: "RUN")',
    "deleteRun": '(runId: "RUN")',
    "reloadRepositoryLocation": '(repositoryLocationName: "world.py")',
    "reloadWorkspace": "",
    "shutdownRepositoryLocation": '(repositoryLocationName: "world.py")',
    "wipeAssets": f"(assetPartitionRanges: [{{ {_ASSET} }}])",
    "reportRunlessAssetEvents": f"(eventParams: {{ {_ASSET}, eventType: ASSET_MATERIALIZATION }})",
    "reportAssetCheckEvaluations": f'(eventParams: {{ {_ASSET}, checkName: "c", passed: true }})',
    "launchPartitionBackfill": '(backfillParams: {assetSelection: [{path: ["tide"]}], partitionNames: ["2024-01-02"]})',
    "resumePartitionBackfill": '(backfillId: "BACKFILL")',
    "reexecutePartitionBackfill": '(reexecutionParams: { parentRunId: "BACKFILL", strategy: ALL_STEPS })',
    "cancelPartitionBackfill": '(backfillId: "BACKFILL")',
    "addDynamicPartition": f'({_CLIENTS}, partitionKey: "north")',
    "deleteDynamicPartitions": f'({_CLIENTS}, partitionKeys: ["north"])',
    "setAppManagedComponent": f'({_COMPONENT}, componentType: "t", attributes: "{{}}")',
    "deleteAppManagedComponent": f"({_COMPONENT})",
    "refreshComponentState": '(locationName: "world.py", defsStateKey: "k")',
    "setAutoMaterializePaused": "(paused: true)",
    "setConcurrencyLimit": '(concurrencyKey: "tides", limit: 7)',
    "deleteConcurrencyLimit": '(concurrencyKey: "tides")',
    "freeConcurrencySlotsForRun": '(runId: "RUN")',
    "freeConcurrencySlots": '(runId: "RUN")',
}
# For each role, and not in the log: they change nothing of the system.
FOR_ALL = {
    "logTelemetry": '(action: "a", clientTime: "1", clientId: "c", metadata: "{}")',
    "setNuxSeen": "",
}
_ANSWERS_OF_ONE_WORD = (
    *("setNuxSeen", "setAutoMaterializePaused", "setConcurrencyLimit", "deleteConcurrencyLimit"),
    *("freeConcurrencySlotsForRun", "freeConcurrencySlots"),
)


def document(name: str, run: str, backfill: str) -> str:
    """The mutation, about a run and a backfill."""
    arguments = {**ARGUMENTS, **FOR_ALL}[name].replace("RUN", run).replace("BACKFILL", backfill)
    answer = "" if name in _ANSWERS_OF_ONE_WORD else "{ __typename }"
    if name == "launchMultipleRuns":
        answer = "{ ... on LaunchMultipleRunsResult { launchMultipleRunsResult { __typename } } }"
    if name == "terminateRuns":
        answer = "{ ... on TerminateRunsResult { terminateRunResults { __typename } } }"
    return f"mutation {{ {name}{arguments} {answer} }}"
