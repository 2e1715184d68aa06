"""What decodes images says nothing of its own: a file that is broken gets one line of ours."""

import os


def quieten() -> None:
    """No more lines of OpenCV's log, from this process and those that it starts."""
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
