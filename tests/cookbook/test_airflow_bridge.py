"""Both sides of the bridge agree. Airflow 2.11, which the bridge was played with, is not in this environment."""

import ast
import re

import yaml

from dedp_assets import settings

BRIDGE = settings.REPOSITORY / "examples" / "airflow_bridge"


def test_the_bridge_names_each_task_of_the_dag_and_has_a_state_for_it() -> None:
    dag = ast.parse((BRIDGE / "dags" / "shop.py").read_text())
    tasks = {node.name for node in dag.body if isinstance(node, ast.FunctionDef)}
    state = yaml.safe_load((BRIDGE / "dags" / "proxied_state" / "shop.yaml").read_text())
    assert {task["id"] for task in state["tasks"]} == tasks
    mappings = re.search(r"task_mappings=(\{.*?\})", (BRIDGE / "definitions.py").read_text(), re.DOTALL)
    assert mappings
    assert set(re.findall(r'"(\w+)":', mappings[1])) == tasks
