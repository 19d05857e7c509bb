#include "xvisor.h"
